"""Feedback: log to MLflow what became of the sampled live decisions."""

from prefect import flow, get_run_logger

from model_code.settings import Settings
from tasks.monitoring.live_feedback import Logged, log_feedback
from tasks.runs.names import timed_name


@flow(name="feedback", flow_run_name=timed_name, description=__doc__, persist_result=False)
def feedback() -> list[Logged]:
    """Log each hour of decisions once, on the run that registered their model version."""
    logged, notes = log_feedback(Settings().resolved())
    for note in notes:
        get_run_logger().warning(note)
    return logged
