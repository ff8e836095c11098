"""Runs in Prefect and MLflow: lifecycle, lock, heartbeat, clean-up, faults."""
