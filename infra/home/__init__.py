"""The home folder: one that moved, a user without one."""
