"""Promotion steps: run once per flow run, however often it is suspended or retried.

A resumed flow run executes its body again from the top. A step that finished before must return
the same result, so each result is stored under the flow run's id and the step's name.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.context import TaskRunContext
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer

from model_code.settings import Settings
from tasks.caching.shared_results import settle
from tasks.caching.stage import announced

P = ParamSpec("P")
R = TypeVar("R")


def once_per_run(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Turn a function into a task that completes at most once in a flow run."""

    def key(_: TaskRunContext, __: dict[str, Any]) -> str:
        found = f"{name.replace(' ', '-')}-{flow_run.id}"
        settle(Settings().resolved(), found)
        return found

    return task(
        persist_result=True,
        result_serializer=JSONSerializer(),
        cache_key_fn=key,
        **announced(name),
    )
