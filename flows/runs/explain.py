"""Explain why a run stopped: stage, cause in one line, kind of fault, who, what to do next."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from pydantic import ValidationError
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from flows.runs.find import EVERYTHING, EXPLAINED, find_run, flow_of, is_cancelled, last_failed
from flows.runs.release import Release
from model_code.settings import Settings
from tasks.runs import mlflow_runs, started_by
from tasks.runs.cleanup import MESSAGE, clean_up
from tasks.runs.faults import (
    CANCELLED,
    CHECK,
    INTERRUPTED,
    KILLED,
    KINDS,
    Cause,
    Fault,
    cause_by_name,
    continue_with,
)
from tasks.runs.lock import read_owner
from tasks.runs.names import DATE, next_command, title
from tasks.runs.task_runs import plain_name, settled_task_runs, task_runs

DONE = {"Completed", "Cached"}
# "Flow run encountered an exception: DataError: what ..." (the colon differs between versions)
EXCEPTION = re.compile(r"encountered an exception:? (\w+)(?:: |\()(.*)", re.DOTALL)
NOT_STARTED = "Failed to submit flow run to infrastructure"  # a worker's message
CROWDED_OUT = "Deployment concurrency limit reached"  # Prefect's message


class Explanation(NamedTuple):
    """What an on-call engineer needs to know of a run.

    Attributes:
        who: started, approved or rejected it, as far as that is recorded.
        stage: where it stopped; None if before the first.
        cause: one line.
        remedy: the error's own advice.
        done: finished stages with their states; of a backfill, its dates.
        where: the error's own place.
        note: that other runs have the same name.
        command: resumes the run, or what to start if that must fail again; None: nothing to do.
    """

    flow: str
    run: str
    state: str
    when: str
    who: str
    stage: str | None
    cause: str
    kind: Cause | None
    remedy: str
    done: tuple[tuple[str, str], ...]
    command: str | None
    mlflow_run_id: str | None
    where: str = ""
    note: str = ""


def explain(
    settings: Settings, run: str | None, *, of_any_flow: bool = False, cleaned: bool = False
) -> Explanation:
    """Explain a flow run; None explains the newest nightly that is not completed.

    Args:
        settings: where its stores are.
        run: name or id.
        of_any_flow: None means the newest failed run of any flow, cancelled ones left out.
        cleaned: runs of dead processes are closed already.

    Raises:
        ConfigError: there is none.
    """
    if not cleaned:
        clean_up(settings)
    notes: list[str] = []
    if of_any_flow and run is None:
        found = last_failed(EXPLAINED)
    else:
        found = find_run(run, EVERYTHING, say=notes.append)
    flow = flow_of(found)
    release = Release.of(settings, found, flow)
    mlflow_run_id, tags = _mlflow_run(settings, found)
    state = found.state
    text = (state.message if state else None) or ""
    ended = state is not None and state.is_final()
    stages = _stages(found, ended)
    done = tuple(
        (plain_name(stage), str(stage.state_name)) for stage in stages if stage.state_name in DONE
    )
    stopped = next((stage for stage in stages if stage.state_name not in DONE), None)
    known = Explanation(
        flow=flow,
        run=found.name,
        state=state.name if state and state.name else "unknown",
        when=_when(found),
        who=release.who or _starter(found, tags),
        stage=plain_name(stopped) if stopped else None,
        cause=text.splitlines()[0] if text else "",
        kind=None,
        remedy="",
        done=done,
        command=None,
        mlflow_run_id=mlflow_run_id,
        note="".join(notes),
    )
    if state is None or not ended:
        return _not_ended(settings, known, release, tags)
    if state.is_completed():
        return known._replace(stage=None, cause=release.outcome or known.cause)
    if is_cancelled(found):
        return _cancelled(known, found, text, next_command(flow, found))
    fault = _classify(text, tags, crashed=state.type == StateType.CRASHED)
    known = known._replace(
        cause=fault.cause_line,
        kind=fault.cause,
        where=fault.where,
        remedy=fault.remedy,
        command=next_command(flow, found, fault.kind),
    )
    return _by_date(settings, known, found) if flow == "backfill" else known


def _not_ended(
    settings: Settings, known: Explanation, release: Release, tags: dict[str, str]
) -> Explanation:
    if release.waits:
        return known._replace(cause="it waits for a decision", remedy=release.waits)
    owner = read_owner(settings) if known.flow not in {"promote", "rollback"} else None
    pid = f", pid {owner.process.pid}" if owner else ""
    pid += f" on {owner.process.host}" if owner and not owner.process.here else ""
    cause = f"it has not ended: {known.state}{pid}"
    if mlflow_runs.ERROR_TAG in tags and not owner:
        cause = "its process is still shutting down: try again in a few seconds"
    return known._replace(cause=cause, stage=None)


def _cancelled(known: Explanation, run: FlowRun, text: str, command: str | None) -> Explanation:
    if CROWDED_OUT in text:
        cause = "it was not started: the run before it was still active"
        return known._replace(cause=cause, remedy="see whether that one completed: tickline why")
    known = known._replace(cause=CANCELLED.what, kind=CANCELLED.cause)
    return known._replace(command=command if run.start_time else None)


def _by_date(settings: Settings, known: Explanation, run: FlowRun) -> Explanation:
    """A backfill's explanation: its finished dates, and why the first failed date stopped."""
    dates = _dates(run)
    done = tuple((night.name, str(night.state_name)) for night in dates if night.state_name in DONE)
    known = known._replace(done=done)
    failed = [night for night in dates if night.state_name not in DONE]
    if not failed:
        return known
    first = explain(settings, str(failed[0].id), cleaned=True)
    others = f"; {len(failed) - 1} more dates failed" if len(failed) > 1 else ""
    return known._replace(
        stage=f"{first.stage or 'before the first stage'}, of {failed[0].name}",
        cause=f"{first.cause}{others}",
        kind=first.kind,
        where=first.where,
        remedy=first.remedy,
    )


def _dates(run: FlowRun) -> list[FlowRun]:
    """The newest night of each of a backfill's dates, the oldest date first."""
    nights = _tagged(str(run.id)) or _tagged(run.name)  # an earlier Tickline tagged the name alone
    by_date: dict[str, FlowRun] = {}
    for night in sorted(nights, key=lambda night: str(night.created)):
        by_date[night.name] = night
    return [by_date[date] for date in sorted(by_date)]


def _tagged(tag: str) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[DATE])),
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag])),
        )


def render(found: Explanation) -> RenderableType:
    """Lay out an explanation for the terminal, most urgent first."""
    name = escape(title(found.flow, found.run))
    table = Table(box=box.SIMPLE_HEAD, show_header=False, title=name)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("state", f"{found.state} {found.when}")
    if found.who:
        table.add_row("who", escape(found.who))
    if found.command:
        after = f"after {found.done[-1][0]}" if found.done else "before the first stage"
        table.add_row("stopped in", found.stage or after)
    table.add_row("cause", escape(found.cause))
    if found.where:
        table.add_row("where", escape(found.where))
    if found.kind:
        table.add_row("kind", f"[bold]{found.kind}[/]: {KINDS[found.kind]}")
    if found.remedy:
        table.add_row("do", escape(found.remedy))
    names = ", ".join(f"{name} ({state})" for name, state in found.done)
    table.add_row("done", names or "nothing")
    if found.mlflow_run_id:
        table.add_row("MLflow run", found.mlflow_run_id)
    last = f"[bold]{escape(continue_with(found.command))}"
    return Group(table, escape(found.note), last) if found.note else Group(table, last)


def _classify(text: str, tags: dict[str, str], *, crashed: bool) -> Fault:
    """What stopped a run, from its MLflow run's tags or the message of its state."""
    error = tags.get(mlflow_runs.ERROR_TAG, "")
    if error == MESSAGE:  # the run itself could not write its error, e.g. on a full disk
        error = ""
    try:
        fault = Fault.model_validate_json(tags[mlflow_runs.FAULT_TAG])
    except (KeyError, ValidationError):  # it stopped before its MLflow run was created
        fault = None
    if crashed and NOT_STARTED in text:
        remedy = "read the worker's log: tickline logs worker -n 100"
        what = " ".join(text.split())[:300]
        return Fault(cause="machine", kind="", what=what, remedy=remedy)
    if crashed and fault is not None and fault.cause == "person":
        return fault.model_copy(update={"kind": "", "what": INTERRUPTED})
    if crashed:
        return Fault(cause="machine", kind="", what=KILLED, remedy=CHECK)
    if fault is not None:  # an earlier Tickline stored no remedy
        return fault.model_copy(update={"remedy": fault.remedy or _advice(error or text)})
    named = EXCEPTION.search(text)
    remedy, where = _advice(error or text), _advice(error or text, "where")
    if named is None:
        what = text.splitlines()[0] if text else "no error message was stored"
        return Fault(cause="code", kind="", what=what, where=where, remedy=remedy)
    kind, what = named[1], named[2].splitlines()[0].strip("'\")")
    cause = cause_by_name(kind, what)
    return Fault(cause=cause, kind=kind, what=what, where=where, remedy=remedy)


def _advice(text: str, part: str = "do") -> str:
    found = re.search(rf"^\s*{part}:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _stages(run: FlowRun, ended: bool) -> list[TaskRun]:
    read = settled_task_runs if ended else task_runs
    with get_client(sync_client=True) as client:
        found = read(client, run.id)
    never = datetime.max.replace(tzinfo=UTC)
    ordered = sorted(found, key=lambda stage: stage.start_time or never)
    newest = {plain_name(stage): stage for stage in ordered}  # of several attempts
    return [stage for stage in ordered if newest[plain_name(stage)] is stage]


def _mlflow_run(settings: Settings, run: FlowRun) -> tuple[str | None, dict[str, str]]:
    mlflow: MlflowClient = mlflow_runs.client(settings)
    experiments = [found.experiment_id for found in mlflow.search_experiments()]
    for tag in (mlflow_runs.FLOW_RUN_TAG, mlflow_runs.PROMOTION_TAG):
        runs: Sequence[Run] = mlflow.search_runs(
            experiments, f"tags.`{tag}` = '{run.id}'", max_results=1
        )
        if runs:
            return runs[0].info.run_id, dict(runs[0].data.tags)
    return None, {}


def _starter(run: FlowRun, tags: dict[str, str]) -> str:
    if started_by.TAG in tags:
        return f"started by {tags[started_by.TAG]}"
    by = run.created_by  # it stopped before its MLflow run was created
    if run.auto_scheduled or (by is not None and by.type == "SCHEDULE"):
        return "started by the schedule"
    if by is not None and by.type:
        return f"started by {by.type.lower()} {by.display_value or by.id}"
    return "started by hand"


def _when(run: FlowRun) -> str:
    moment = run.end_time or (run.state.timestamp if run.state else None)
    return f"at {moment.astimezone():%Y-%m-%d %H:%M:%S %Z}" if moment else ""
