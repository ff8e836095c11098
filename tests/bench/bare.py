"""Stages as plain functions: everything they would tell MLflow goes nowhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from prefect.logging import disable_run_logger

from model_code.settings import Settings
from tasks.caching.stage import RunRef
from tasks.runs import mlflow_runs


class Nowhere:
    """An MLflow client that keeps nothing."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: SimpleNamespace(
            data=SimpleNamespace(params={}, tags={}, metrics={}),
            info=SimpleNamespace(run_id="none", experiment_id="0"),
        )

    def get_metric_history(self, *_: object) -> list[object]:
        return []


@contextmanager
def bare(home: Path) -> Iterator[RunRef]:
    """A run whose tracking costs nothing."""
    settings = Settings().resolved(home=home)
    with (
        patch.object(mlflow_runs, "client", lambda _: Nowhere()),
        patch.object(mlflow_runs, "nested", lambda *_: "none"),
        disable_run_logger(),
    ):
        yield RunRef(settings=settings, mlflow_run_id="none", flow_run_id="none")
