"""Why a run stopped: the stage, the cause in one line, whose fault it is, how to go on."""

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
WHOSE = {
    "data": "the ticks are at fault: whoever delivers them",
    "machine": "this machine is at fault: disk, memory, or the process was killed",
    "service": "a service did not answer: a server, the network, a database",
    "code": "Tickline, a library or a setting is at fault: its developers, in the morning",
}
# "Flow run encountered an exception: DataError: what ..." (the colon differs between versions)
EXCEPTION = re.compile(r"encountered an exception:? (\w+)(?:: |\()(.*)", re.DOTALL)
NOT_BEGUN = "Failed to submit flow run to infrastructure"  # a worker says so
KILLED = "the process died without a word: killed (out of memory?), or the machine went down"


class Explanation(NamedTuple):
    """What an on-call engineer needs to know of a run.

    Attributes:
        stage: where it stopped; None before the first.
        cause: one line.
        remedy: what the error itself advises.
        done: stages that need not be done again, with their states.
        command: goes on with it; None where there is nothing to go on with.
    """

    flow: str
    run: str
    state: str
    when: str
    stage: str | None
    cause: str
    whose: Cause | None
    remedy: str
    done: tuple[tuple[str, str], ...]
    command: str | None
    mlflow_run_id: str | None


def explain(settings: Settings, run: str | None) -> Explanation:
    """Explain a flow run; None: the newest nightly that is not completed.

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
    whose, cause, remedy = (None, text.splitlines()[0] if text else "", "")
    if state is not None and state.is_completed():
        command = None
    elif not ended:
        holder = read_owner(settings)
        pid = f", process {holder.process.pid}" if holder else ""
        cause, command = f"it has not ended: {state.name if state else 'unknown'}{pid}", None
        if mlflow_runs.ERROR_TAG in tags and not holder:
            cause = "its process is ending just now: ask again in some seconds"
    else:
        whose, cause, remedy = _judge(text, tags, crashed=state.type == StateType.CRASHED)  # type: ignore[union-attr]
        command = f"tickline rerun {found.name}"
    stopped = next((stage for stage in stages if stage.state_name not in DONE), None)
    return Explanation(
        flow=flow_of(found),
        run=found.name,
        state=state.name if state and state.name else "unknown",
        when=_when(found),
        stage=plain_name(stopped.name) if stopped and command else None,
        cause=cause,
        whose=whose,
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
    """For people, the most urgent first."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, title=f"{found.flow} {found.run}")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("state", f"{found.state} {found.when}")
    if found.command:
        table.add_row("stopped in", found.stage or "before the first stage")
    table.add_row("cause", found.cause)
    if found.whose:
        table.add_row("kind", f"[bold]{found.whose}[/]: {WHOSE[found.whose]}")
    if found.remedy:
        table.add_row("first", found.remedy)
    names = ", ".join(f"{name} ({state})" for name, state in found.done)
    table.add_row("done already", names or "nothing")
    if found.mlflow_run_id:
        table.add_row("MLflow run", found.mlflow_run_id)
    last = f"go on with: [bold]{found.command}[/]" if found.command else "nothing to rerun"
    return Group(table, last)


def _judge(text: str, tags: dict[str, str], *, crashed: bool) -> tuple[Cause, str, str]:
    """Whose fault, the cause in a line, the error's own advice."""
    error = tags.get(mlflow_runs.ERROR_TAG, "")
    if error == MESSAGE:  # the run in MLflow could not be closed, on a full disk say
        error = ""
    if crashed and NOT_BEGUN in text:
        return "machine", " ".join(text.split())[:300], "tickline logs worker -n 100"
    if crashed:
        return "machine", KILLED, "dmesg | tail shows whether memory ran out; df -h the disk"
    remedy = _advice(error or text)
    try:
        fault = Fault.model_validate_json(tags[mlflow_runs.FAULT_TAG])
    except (KeyError, ValidationError):  # it stopped before it had a run in MLflow
        named = EXCEPTION.search(text)
        if named is None:
            return "code", text.splitlines()[0] if text else "no reason was kept", remedy
        kind, what = named[1], named[2].splitlines()[0].strip("'\")")
        return cause_by_name(kind, what), f"{kind}: {what}", remedy
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
    newest = {plain_name(stage.name): stage for stage in ordered}  # each attempt leaves its own
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
