"""The steps of a promotion, and rollback."""
