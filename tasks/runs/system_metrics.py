"""CPU, memory, disk, network and GPU use of this machine, logged to an MLflow run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.system_metrics import system_metrics_monitor

INTERVAL_S = 10.0


@contextmanager
def system_metrics(
    tracking_uri: str, run_id: str, interval_s: float = INTERVAL_S
) -> Iterator[None]:
    """Log MLflow's system metrics during the block; the thread that does has ended after it.

    Args:
        tracking_uri: of MLflow.
        run_id: of a RUNNING run; a resumed one continues its steps.
        interval_s: seconds between samples; a shorter block logs none.
    """
    logger = logging.getLogger(system_metrics_monitor.__name__)
    before = logger.level
    logger.setLevel(logging.WARNING)  # it announces itself on the console
    try:
        made: Any = system_metrics_monitor.SystemMetricsMonitor  # it has no types
        monitor = made(run_id, interval_s, resume_logging=True, tracking_uri=tracking_uri)
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()
    finally:
        logger.setLevel(before)
