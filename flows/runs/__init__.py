"""Start, find, explain and rerun flow runs."""
