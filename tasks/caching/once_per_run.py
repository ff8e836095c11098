"""Steps of a promotion: done once per flow run, however often the run is suspended or retried.

A resumed flow run executes its body again from the top. What was done before the suspension must
come back as it was: each step's result is kept under the flow run's id and the step's name.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.context import TaskRunContext
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer

from tasks.caching.stage import announce_state

P = ParamSpec("P")
R = TypeVar("R")


def once_per_run(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a task that completes at most once in a flow run."""

    def key(_: TaskRunContext, __: dict[str, Any]) -> str:
        return f"{name.replace(' ', '-')}-{flow_run.id}"

    return task(
        name=name,
        persist_result=True,
        result_serializer=JSONSerializer(),
        cache_key_fn=key,
        on_completion=[announce_state],
        on_failure=[announce_state],
    )
