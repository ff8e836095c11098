"""Validation of one instrument-day: expectations, quarantine, report."""
