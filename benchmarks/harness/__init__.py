"""What all rows share: entries, children, rounds, figures, and how they are shown."""
