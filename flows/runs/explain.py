"""Explain why a run stopped: stage, cause in one line, kind of fault, how to resume."""

import re
from datetime import UTC, datetime
from typing import NamedTuple

from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from pydantic import ValidationError
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from flows.runs.find import find_run, flow_of
from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tasks.runs.cleanup import MESSAGE, clean_up
from tasks.runs.faults import Cause, Fault, cause_by_name
from tasks.runs.lock import read_owner
from tasks.runs.task_runs import plain_name, settled_task_runs, task_runs

DONE = {"Completed", "Cached"}
KINDS = {
    "data": "bad input data: contact the data provider now",
    "machine": "this machine: disk, memory, or a killed process",
    "service": "a server, the network or a database did not answer",
    "code": "Tickline, a library or a setting: not urgent, file it in the morning",
}
# "Flow run encountered an exception: DataError: what ..." (the colon differs between versions)
EXCEPTION = re.compile(r"encountered an exception:? (\w+)(?:: |\()(.*)", re.DOTALL)
NOT_STARTED = "Failed to submit flow run to infrastructure"  # a worker's message
KILLED = (
    "the process exited without an error message: killed (out of memory?) or the machine restarted"
)


class Explanation(NamedTuple):
    """What an on-call engineer needs to know of a run.

    Attributes:
        stage: where it stopped; None if before the first.
        cause: one line.
        remedy: the error's own advice.
        done: finished stages with their states.
        command: resumes the run; None if there is nothing to resume.
    """

    flow: str
    run: str
    state: str
    when: str
    stage: str | None
    cause: str
    kind: Cause | None
    remedy: str
    done: tuple[tuple[str, str], ...]
    command: str | None
    mlflow_run_id: str | None


def explain(settings: Settings, run: str | None) -> Explanation:
    """Explain a flow run; None explains the newest nightly that is not completed.

    Raises:
        ConfigError: there is none.
    """
    clean_up(settings)
    found = find_run(run)
    mlflow_run_id, tags = _mlflow_run(settings, found)
    state = found.state
    text = (state.message if state else None) or ""
    ended = state is not None and state.is_final()
    stages = _stages(found, ended)
    kind, cause, remedy = (None, text.splitlines()[0] if text else "", "")
    if state is not None and state.is_completed():
        command = None
    elif not ended:
        owner = read_owner(settings)
        pid = f", pid {owner.process.pid}" if owner else ""
        cause, command = f"it has not ended: {state.name if state else 'unknown'}{pid}", None
        if mlflow_runs.ERROR_TAG in tags and not owner:
            cause = "its process is still shutting down: try again in a few seconds"
    else:
        kind, cause, remedy = _classify(text, tags, crashed=state.type == StateType.CRASHED)  # type: ignore[union-attr]
        command = f"tickline rerun {found.name}"
    stopped = next((stage for stage in stages if stage.state_name not in DONE), None)
    return Explanation(
        flow=flow_of(found),
        run=found.name,
        state=state.name if state and state.name else "unknown",
        when=_when(found),
        stage=plain_name(stopped.name) if stopped and command else None,
        cause=cause,
        kind=kind,
        remedy=remedy,
        done=tuple(
            (plain_name(stage.name), str(stage.state_name))
            for stage in stages
            if stage.state_name in DONE
        ),
        command=command,
        mlflow_run_id=mlflow_run_id,
    )


def render(found: Explanation) -> RenderableType:
    """Lay out an explanation for the terminal, most urgent first."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, title=f"{found.flow} {found.run}")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("state", f"{found.state} {found.when}")
    if found.command:
        table.add_row("stopped in", found.stage or "before the first stage")
    table.add_row("cause", found.cause)
    if found.kind:
        table.add_row("kind", f"[bold]{found.kind}[/]: {KINDS[found.kind]}")
    if found.remedy:
        table.add_row("do", found.remedy)
    names = ", ".join(f"{name} ({state})" for name, state in found.done)
    table.add_row("done", names or "nothing")
    if found.mlflow_run_id:
        table.add_row("MLflow run", found.mlflow_run_id)
    last = f"continue with: [bold]{found.command}[/]" if found.command else "nothing to rerun"
    return Group(table, last)


def _classify(text: str, tags: dict[str, str], *, crashed: bool) -> tuple[Cause, str, str]:
    """Return the kind of fault, the cause in one line, and the error's own advice."""
    error = tags.get(mlflow_runs.ERROR_TAG, "")
    if error == MESSAGE:  # the run itself could not write its error, e.g. on a full disk
        error = ""
    if crashed and NOT_STARTED in text:
        remedy = "read the worker's log: tickline logs worker -n 100"
        return "machine", " ".join(text.split())[:300], remedy
    if crashed:
        return "machine", KILLED, "check memory: dmesg | tail; check the disk: df -h"
    remedy = _advice(error or text)
    try:
        fault = Fault.model_validate_json(tags[mlflow_runs.FAULT_TAG])
    except (KeyError, ValidationError):  # it stopped before its MLflow run was created
        named = EXCEPTION.search(text)
        if named is None:
            return "code", text.splitlines()[0] if text else "no error message was stored", remedy
        error_type, what = named[1], named[2].splitlines()[0].strip("'\")")
        return cause_by_name(error_type, what), f"{error_type}: {what}", remedy
    return fault.cause, f"{fault.kind}: {fault.what}", remedy


def _advice(text: str) -> str:
    found = re.search(r"^\s*do:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _stages(run: FlowRun, ended: bool) -> list[TaskRun]:
    read = settled_task_runs if ended else task_runs
    with get_client(sync_client=True) as client:
        found = read(client, run.id)
    never = datetime.max.replace(tzinfo=UTC)
    ordered = sorted(found, key=lambda stage: stage.start_time or never)
    newest = {plain_name(stage.name): stage for stage in ordered}  # of several attempts
    return [stage for stage in ordered if newest[plain_name(stage.name)] is stage]


def _mlflow_run(settings: Settings, run: FlowRun) -> tuple[str | None, dict[str, str]]:
    mlflow: MlflowClient = mlflow_runs.client(settings)
    experiments = [found.experiment_id for found in mlflow.search_experiments()]
    query = f"tags.`{mlflow_runs.FLOW_RUN_TAG}` = '{run.id}'"
    runs = mlflow.search_runs(experiments, query, max_results=1)
    return (runs[0].info.run_id, dict(runs[0].data.tags)) if runs else (None, {})


def _when(run: FlowRun) -> str:
    moment = run.end_time or (run.state.timestamp if run.state else None)
    return f"at {moment.astimezone():%Y-%m-%d %H:%M:%S %Z}" if moment else ""
