"""What is kept and shown: reads events, changes nothing."""
