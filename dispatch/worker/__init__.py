"""The only room whose code runs in other processes: what a user writes, the nanny, and the runner process."""
