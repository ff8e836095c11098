"""Commands of the live path."""
