"""Signs of life of a run: whose process it is, and when that was last well."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.tracking import MlflowClient

from infra.process import ProcessId
from tasks.runs import mlflow_runs

PROCESS_TAG = "tickline.process"
BEAT_TAG = "tickline.heartbeat"  # seconds since the epoch
BEAT_S = 60.0
SILENT_S = 900.0


def heartbeat_tags() -> dict[str, str]:
    """Tags that say whose a run is from now on; to be there before it reads RUNNING."""
    return {PROCESS_TAG: ProcessId.own().model_dump_json(), BEAT_TAG: str(time.time())}


@contextmanager
def heartbeat(mlflow: MlflowClient, run_id: str) -> Iterator[None]:
    """Mark an MLflow run as this process's own, and say every minute that it lives."""
    mlflow_runs.set_tags(mlflow, run_id, heartbeat_tags())
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_S):
            try:
                mlflow.set_tag(run_id, BEAT_TAG, str(time.time()))
            except Exception:  # noqa: S112  a store that is down for a while: the next one counts
                continue

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)
