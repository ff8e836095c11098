"""What Prefect's page of a run shows in its log: one line for each stage, failures in words.

Prefect has no setting for the lines of its own engine. A filter on its two loggers of runs drops
them and puts a failure into words. Its traceback follows in the same entry.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.logging.loggers import task_run_logger
from rich.markup import escape

from infra.logs import PAGE_ONLY, log
from infra.redact import redact
from tasks.runs.console import console
from tasks.runs.faults import Fault
from tasks.runs.names import next_command
from tasks.runs.task_runs import plain_name

FLOWS, TASKS = "prefect.flow_runs", "prefect.task_runs"
# how lines of Prefect's engine begin that say nothing beside ours
NOISE = (
    "Running hook",
    "Hook ",
    "Finished in state",
    "Beginning flow run",
    "View at",
    "Renamed task run",
)
RAISED, CRASHED, TASK_FAILED = (
    "Encountered exception during execution",
    "Crash detected!",
    "Task run failed with",
)
COLOURS = {"Cached": "cyan", "Completed": "green"}


@runtime_checkable
class HasFacts(Protocol):
    """A result that says in one short sentence what it found."""

    @property
    def facts_line(self) -> str:
        """The sentence, without a full stop."""


def say(text: str, level: int = logging.INFO) -> None:
    """Add a line to the current run's log in Prefect; outside of a run, do nothing."""
    try:
        get_run_logger().log(level, "%s", redact(text), extra={PAGE_ONLY: True})
    except MissingContextError:
        return


def stage_ended(
    task: Task[..., Any],
    run: TaskRun,
    state: State[Any],
    facts: Callable[[Any, Any], str] | None = None,
    nothing: str = "",
) -> None:
    """Print a finished task run and add it to the page and the structured log.

    Args:
        task: its task.
        run: its task run.
        state: completed, cached or failed.
        facts: gives the facts of a result that has none itself, from the task's argument `run`
            and the result.
        nothing: the facts of the result None.
    """
    took = (state.timestamp - run.start_time).total_seconds() if run.start_time else 0.0
    name, ended = plain_name(run), state.name or "Unknown"
    result = state.result(raise_on_failure=False)
    found = "" if state.is_failed() else _facts(result, facts, nothing)
    room = console.width - len(f"  {ended:<9} {name}  {took:.1f} s  ")
    line = f"  [{COLOURS.get(ended, 'red')}]{ended:<9}[/] {escape(name)}  [dim]{took:.1f} s  "
    console.print((line + escape(_shortened(found, room))).rstrip())
    log("stage ended", stage=name, state=state.name, seconds=round(took, 3), facts=found)
    text = f"{name}: {found}" if found else name
    if state.is_failed():
        text, level = f"{name}: {type(result).__name__}", logging.ERROR
    else:
        level = logging.INFO
    logger = task_run_logger(run, task)
    logger.log(level, "%s (%s, %.1f s)", redact(text), ended.lower(), took, extra={PAGE_ONLY: True})


def _facts(result: Any, facts: Callable[[Any, Any], str] | None, nothing: str) -> str:
    if result is None:
        return nothing
    context = TaskRunContext.get()
    if facts is not None and context is not None:
        return facts(context.parameters["run"], result)
    return result.facts_line if isinstance(result, HasFacts) else ""


def _shortened(found: str, room: int) -> str:
    """The first of the facts, as many as there is room for; empty if there is room for none."""
    while found and len(found) > room:
        found = found.rpartition("; ")[0]
    return found


def failure_text(error: BaseException) -> str:
    """What stopped the current flow run, where, what to do, and the command."""
    fault, context = Fault.of(error), FlowRunContext.get()
    if context is None or context.flow_run is None:
        return fault.text(None)
    run = context.flow_run
    command = next_command(context.flow.name, run, fault.kind) if context.flow else None
    return fault.text(command)


class _Plain(logging.Filter):
    """Drops noise of Prefect's engine; puts what stopped a run into words."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is kept; that of a run's failure is given another message."""
        text = record.getMessage()
        if text.startswith(NOISE):
            return False
        if record.name == TASKS:
            return self._of_task(record, text)
        error = sys.exc_info()[1]
        if error is not None and text.startswith((RAISED, CRASHED)):
            record.msg, record.args = redact(failure_text(error)), ()
        return True

    def _of_task(self, record: logging.LogRecord, text: str) -> bool:
        """Keep one line of an attempt that is followed by another; `stage_ended` says the last."""
        if not text.startswith((TASK_FAILED, CRASHED)):
            return True
        arguments = record.args
        if not isinstance(arguments, tuple) or len(arguments) != 5:
            return False
        _, error, attempt, attempts, when = arguments
        if isinstance(error, BaseException):
            what = Fault.of(error).cause_line
            record.msg = redact(f"{what}. Retry {attempt} of {attempts} will start {when}")
            record.args = ()
        return True


_PLAIN = _Plain()
for _name in (FLOWS, TASKS):  # in every process that runs a flow
    logging.getLogger(_name).addFilter(_PLAIN)
