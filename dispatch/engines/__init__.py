"""Where workers live: in this process, or in processes on this machine. The only room that starts processes."""
