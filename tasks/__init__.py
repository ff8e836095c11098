"""Prefect tasks: thin wrappers that add persistence, caching, retries and tracking."""
