"""The parent's side: what a user subclasses, and what runs it."""
