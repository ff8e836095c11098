"""Flows, one per file; `flows.cli` is the `tickline` command."""
