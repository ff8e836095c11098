"""Readers of market files: one module per layout."""
