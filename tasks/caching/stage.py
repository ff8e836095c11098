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
from rich.markup import escape

from infra.logs import log
from model_code.artifacts import ArtifactStore
from model_code.settings import Settings
from tasks.caching.fingerprint import stage_key
from tasks.caching.repair import drop_unusable_result
from tasks.runs.console import console as run_console
from tasks.runs.faults import retry_if_transient
from tasks.runs.task_runs import plain_name

console = run_console
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
        return ArtifactStore(self.settings.artifacts)


def stage(name: str, *, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Turn a function into a cached, persisted Prefect task keyed by content.

    Args:
        name: the stage's name in Prefect, MLflow and the logs.
        run_name: name of one task run, with the inputs in braces.
    """

    def wrap(function: Callable[P, R]) -> Task[P, R]:
        def key(_: TaskRunContext, inputs: dict[str, Any]) -> str:
            found = f"{name.replace(' ', '-')}-{stage_key(function.__module__, inputs)}"
            drop_unusable_result(inputs["run"].settings, found)
            return found

        decorate = task(
            name=name,
            task_run_name=run_name,
            persist_result=True,
            result_serializer=JSONSerializer(),
            cache_key_fn=key,
            on_completion=[announce_state],
            on_failure=[announce_state],
            **RETRIES,
        )
        return decorate(function)

    return wrap


def announce_state(_: Task[..., Any], run: TaskRun, state: State[Any]) -> None:
    """Print a finished task run: state, name, seconds."""
    took = (state.timestamp - run.start_time).total_seconds() if run.start_time else 0.0
    colour = {"Cached": "cyan", "Completed": "green"}.get(state.name or "", "red")
    name = plain_name(run.name)
    console.print(f"  [{colour}]{state.name:<9}[/] {escape(name)}  [dim]{took:.1f} s")
    log("stage ended", stage=name, state=state.name, seconds=round(took, 3))
