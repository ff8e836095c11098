"""The decorator of stages: a content key, a persisted JSON result, retries.

The key (`tasks/caching/fingerprint.py`) covers the inputs' content, the source of the stage's own
module with everything it imports, and the environment. A stage with an equal key comes back
`Cached`, in this run or any later one.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.serializers import JSONSerializer
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import ArtifactStore
from model_code.settings import Settings
from model_code.storage.shared import artifact_store
from tasks.caching.fingerprint import stage_key
from tasks.caching.repair import drop_unusable_result
from tasks.caching.shared_results import settle, share_result
from tasks.runs.faults import retry_if_transient
from tasks.runs.page import stage_ended

RETRIES: dict[str, Any] = {  # with back-off, only for transient faults
    "retries": 3,
    "retry_delay_seconds": [2.0, 8.0, 30.0],
    "retry_jitter_factor": 0.2,
    "retry_condition_fn": retry_if_transient,
}
P = ParamSpec("P")
R = TypeVar("R")


class RunRef(BaseModel):
    """The run a stage belongs to: where it writes and which MLflow run it logs to.

    Never part of a cache key: equal inputs give equal results in every run.
    """

    model_config = ConfigDict(frozen=True)

    settings: Settings
    mlflow_run_id: str
    flow_run_id: str
    started_by: str = ""

    @property
    def store(self) -> ArtifactStore:
        """The content-addressed artefact store."""
        return artifact_store(self.settings)


def stage(
    name: str,
    *,
    run_name: str | None = None,
    facts: Callable[[RunRef, Any], str] | None = None,
    nothing: str = "",
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Turn a function into a cached, persisted Prefect task keyed by content.

    Args:
        name: the stage's name in Prefect, MLflow and the logs.
        run_name: name of one task run, with the inputs in braces; None: the stage's.
        facts: what the stage found, in one short sentence; None: the result's own
            `facts_line`, if it has one.
        nothing: the same of the result None.
    """

    def wrap(function: Callable[P, R]) -> Task[P, R]:
        def key(_: TaskRunContext, inputs: dict[str, Any]) -> str:
            found = f"{name.replace(' ', '-')}-{stage_key(function.__module__, inputs)}"
            settings = inputs["run"].settings
            settle(settings, found)
            drop_unusable_result(settings, found)
            return found

        def announce(task: Task[..., Any], run: TaskRun, state: State[Any]) -> None:
            stage_ended(task, run, state, facts, nothing)

        decorate = task(
            name=name,
            task_run_name=run_name or name,
            persist_result=True,
            result_serializer=JSONSerializer(),
            cache_key_fn=key,
            on_completion=[share_result, announce],
            on_failure=[announce],
            **RETRIES,
        )
        return decorate(function)

    return wrap


def announced(name: str, *, nothing: str = "") -> dict[str, Any]:
    """Arguments of `task` for one that is not a `stage`: its name, and one line when it ends."""

    def announce(task: Task[..., Any], run: TaskRun, state: State[Any]) -> None:
        stage_ended(task, run, state, nothing=nothing)

    return {
        "name": name,
        "task_run_name": name,
        "on_completion": [share_result, announce],
        "on_failure": [announce],
    }
