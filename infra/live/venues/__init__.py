"""Exchanges as feeds of ticks."""
