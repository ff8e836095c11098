"""The stack launcher and what the servers need."""
