"""Locks of an installation with several hosts, held on the Prefect server that all see."""
