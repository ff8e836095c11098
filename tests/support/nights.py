"""Nights as records, for what shows them."""

import datetime as dt

from model_code.monitoring.history import History, Night, Serving, StageTime
from model_code.repository.exceptions import ApprovedException

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


def night(days_ago: int, **changes: object) -> Night:
    """A finished night that passed, so many days ago."""
    values: dict[str, object] = {
        "name": f"night-{days_ago}",
        "mlflow_run_id": f"m{days_ago}",
        "flow_run_id": f"p{days_ago}",
        "status": "FINISHED",
        "started": NOW - dt.timedelta(days=days_ago, hours=6),
        "seconds": 600.0 + days_ago,
        "simulated": False,
        "verdict": "pass",
        "engine": "openvino-fp32",
        "metrics": {
            "auc": 0.7 + days_ago / 100,
            "baseline_auc": 0.72,
            "accuracy": 0.71,
            "p50_ms": 2.5,
            "p99_ms": 6.25,
            "rows": 1000.0,
            "rows_quarantined": 7.0,
        },
        "stages": (
            StageTime(name="validate", state="Cached", seconds=0.5),
            StageTime(name="train", state="Completed", seconds=500.0),
        ),
    }
    return Night(**(values | changes))


def sight(*nights: Night, **changes: object) -> History:
    """What is seen of these nights, newest first, with a champion ten days old."""
    values: dict[str, object] = {
        "nights": nights,
        "champion": Serving(version="3", since=NOW - dt.timedelta(days=10, hours=2)),
        "sources": {"mlflow": True, "prefect": True, "audit": True},
        "exception": ApprovedException(
            version=3, reasons=("no baseline",), owner="ada", expires=NOW.date()
        ),
    }
    return History(**(values | changes))
