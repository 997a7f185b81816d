"""Words that every process uses. Structs and exceptions; nothing here awaits, and nothing here does I/O."""
