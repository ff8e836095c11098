"""Servers, supervisor, alerts, metrics and set-up of the stack."""
