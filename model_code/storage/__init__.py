"""Shared storage: objects by key below one address, and local copies of them."""
