"""Tickline's pure library: no orchestration, no tracking, no servers."""

__version__ = "0.1.0"
