"""Prefect tasks: thin wrappers that add persistence, caching, retries and tracking."""

from infra.redact import redact_logs

redact_logs()  # of every process that runs a flow, also those that a worker starts
