"""Heartbeat of a run: the process that owns it, and when that was last alive."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.tracking import MlflowClient

from infra.process import ProcessId
from tasks.runs import mlflow_runs

# MLflow's pages hide tags that begin with "mlflow."
PROCESS_TAG = "mlflow.tickline.process"
BEAT_TAG = "mlflow.tickline.heartbeat"  # seconds since the epoch
EARLIER_PROCESS_TAG = "tickline.process"  # of runs of earlier versions
EARLIER_BEAT_TAG = "tickline.heartbeat"
BEAT_S = 60.0
SILENT_S = 900.0


def heartbeat_tags() -> dict[str, str]:
    """Return tags that make this process a run's owner; set them before the run is RUNNING."""
    return {PROCESS_TAG: ProcessId.own().model_dump_json(), BEAT_TAG: str(time.time())}


@contextmanager
def heartbeat(mlflow: MlflowClient, run_id: str) -> Iterator[None]:
    """Mark an MLflow run as owned by this process and update its heartbeat every minute."""
    mlflow_runs.set_tags(mlflow, run_id, heartbeat_tags())
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_S):
            try:
                mlflow.set_tag(run_id, BEAT_TAG, str(time.time()))
            except Exception:  # noqa: S112  the store may be down: try again at the next beat
                continue

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)
