"""Run a task once for each call: here one after another, or on a cluster.

A stage that is repeated comes back Cached, because its key is of its content: a worker that dies
costs only what it had in hand.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner
from prefect.utilities.callables import get_call_parameters
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.cluster.runner import task_runner
from tasks.runs.console import console

R = TypeVar("R")


def fan_out(
    cluster: str | None, stage: Task[..., R], calls: Sequence[Mapping[str, Any]]
) -> tuple[R, ...]:
    """The stage's results, in the order of the calls.

    Args:
        cluster: as `task_runner`; None: in this process.
        stage: with content keys.
        calls: arguments by name.

    Raises:
        ConfigError: as `task_runner`.
        Exception: what the first call that failed has raised; the others are not waited for.
    """
    if cluster is None or len(calls) < 2:
        return tuple(stage(**call) for call in calls)
    for call in calls:
        _drop_unusable(stage, call)
    with task_runner(cluster) as runner, _bar(stage.name, len(calls)) as bar:
        futures = [runner.submit(stage, dict(call)) for call in calls]
        found = []
        for future in futures:
            found.append(future.result())
            bar.advance(bar.task_ids[0])
        return tuple(found)


def in_turn(
    runner: TaskRunner[Any], task: Task[..., R], calls: Iterable[Mapping[str, Any]], at_a_time: int
) -> Iterator[R]:
    """Results in the order of the calls, each of which is drawn when there is room for it.

    Args:
        runner: started.
        task: to run.
        calls: arguments by name.
        at_a_time: calls in hand.
    """
    waiting: deque[PrefectFuture[R]] = deque()
    for call in calls:
        waiting.append(runner.submit(task, dict(call)))
        if len(waiting) == at_a_time:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _drop_unusable(stage: Task[..., Any], call: Mapping[str, Any]) -> None:
    """Compute the call's key here: that drops a result too old for a refreshing run.

    A worker does not know that the run is one.
    """
    if stage.cache_key_fn is not None:
        context: Any = None  # the keys are of the inputs alone
        stage.cache_key_fn(context, get_call_parameters(stage.fn, (), dict(call)))


def _bar(name: str, total: int) -> Progress:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    bar.add_task(name, total=total)
    return bar
