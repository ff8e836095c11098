"""Names of flow runs: what a run is called, and which command continues it.

A name says what the run is for (`nightly 2024-08-09`, `promote v7`), so two runs may have the same
one. Commands then take the newest. A prefix of the id names a run too.
"""

import datetime as dt
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from infra.logs import identify
from tasks.runs.faults import rerun_helps
from tasks.runs.lock import BusyError

RERUNNABLE = ("nightly", "bench", "backfill")
DATE = "backfill night"  # the flow of one date of a backfill; the backfill's id is a tag of it
REPEATED = ("tune", "walkforward")  # the same command continues with what is finished
SHORT = 8  # digits of an id that name a run


def start_name() -> str:
    """Name of the current run until it is known what it is for; a rerun keeps the name it has.

    For `flow_run_name` of a flow.
    """
    job, name = flow_run.flow_name, str(flow_run.name)
    return name if name.startswith(f"{job} ") else f"{job} started {_now()}"


def timed_name() -> str:
    """Name of the current run of a flow that runs every few minutes; for `flow_run_name`."""
    return f"{flow_run.flow_name} {_now()}"


def _now() -> str:
    return f"{dt.datetime.now(dt.UTC):%F %H:%M:%S} UTC"


def rename(name: str) -> None:
    """Rename the current flow run in Prefect and in the open log."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("no flow run to rename")
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(flow_run_id=context.flow_run.id, name=name)
    context.flow_run.name = name  # `prefect.runtime` reads it here
    identify(flow_run_name=name)


def title(flow: str, name: str) -> str:
    """Flow and name of a run; the name alone where it begins with the flow."""
    return name if name.startswith(flow) else f"{flow} {name}"


def short_id(run: FlowRun) -> str:
    """The part of a run's id that commands take."""
    return str(run.id)[:SHORT]


def is_called(run: FlowRun, text: str) -> bool:
    """Whether the text is a run's name, its id or a prefix of its id."""
    return text == run.name or (len(text) >= SHORT and str(run.id).startswith(text))


def reference(run: FlowRun) -> str:
    """What commands take for a run: its name, or its id if other runs have the same name."""
    named = FlowRunFilter(name=FlowRunFilterName(any_=[run.name]))
    try:
        with get_client(sync_client=True) as client:
            only = len(client.read_flow_runs(flow_run_filter=named, limit=2)) == 1
    except Exception:  # the server is gone; the id is right in any case
        only = False
    return run.name if only else short_id(run)


def next_command(flow: str, run: FlowRun, kind: str = "") -> str | None:
    """What to run after a run has stopped; None if nothing continues it.

    Args:
        flow: the name of its flow.
        run: the run.
        kind: type name of the exception that stopped it; empty: another reason.
    """
    if flow == "promote":
        return f"tickline promote --version {run.parameters.get('version')}"
    if flow == "rollback":
        to = run.parameters.get("to")
        return "tickline rollback" + (f" --to {to}" if to else "")
    if flow in REPEATED:
        return f"tickline {flow}, with the same arguments"
    if flow not in (*RERUNNABLE, DATE) or kind == BusyError.__name__:
        return None
    if not rerun_helps(kind):
        return f"tickline {flow}, corrected: a rerun asks for the same again"
    return f"tickline rerun {backfill_of(run) if flow == DATE else reference(run)}"


def backfill_of(night: FlowRun) -> str:
    """What commands take for the backfill that one date's run belongs to."""
    ids = [tag for tag in night.tags if len(tag) == len(str(night.id)) and tag.count("-") == 4]
    if not ids:  # of an earlier Tickline: names were unique
        return night.tags[0] if night.tags else night.name
    try:
        with get_client(sync_client=True) as client:
            return reference(client.read_flow_run(UUID(ids[0])))
    except Exception:  # the server is gone, or the backfill was deleted
        return ids[0][:SHORT]
