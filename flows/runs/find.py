"""Find a flow run by name, by id, or the newest that did not complete."""

from collections.abc import Sequence

from prefect import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from model_code.errors import ConfigError
from tasks.runs.lock import BusyError

NIGHTLY = "nightly"
RERUNNABLE = (NIGHTLY, "bench", "backfill")
EXPLAINED = (*RERUNNABLE, "promote", "rollback")
DATE = "backfill night"  # the flow of one date of a backfill; its runs have the backfill's tag


def find_run(run: str | None, flows: Sequence[str] = RERUNNABLE) -> FlowRun:
    """Find a flow run by name or id; None finds the newest nightly that is not completed.

    Args:
        run: its name or id.
        flows: to look in.

    Raises:
        ConfigError: there is none.
    """
    runs = _newest(flows if run else (NIGHTLY,))
    unfinished = [found for found in runs if is_resumable(found)]
    if run is None:
        if not unfinished:
            raise ConfigError(
                "no nightly failed: every one is completed", remedy="start one: tickline nightly"
            )
        return unfinished[0]
    for found in runs:
        if run in {found.name, str(found.id)}:
            return found
    raise ConfigError(
        f"no run named {run}",
        remedy="choose one of: " + ", ".join(found.name for found in unfinished[:5])
        if unfinished
        else "all runs are completed; start one: tickline nightly",
    )


def last_failed(flows: Sequence[str]) -> FlowRun:
    """Find the newest run of these flows that did not complete and that nobody cancelled.

    Raises:
        ConfigError: there is none; the message names a newer run that a person cancelled.
    """
    runs = [found for found in _newest(flows) if is_resumable(found) and not _waits(found)]
    kept = [found for found in runs if not is_cancelled(found)]
    if kept:
        return kept[0]
    what = NIGHTLY if tuple(flows) == (NIGHTLY,) else "run"
    if runs:
        raise ConfigError(
            f"no {what} failed; the newest that did not complete, {runs[0].name}, was cancelled",
            remedy=f"if it is to be resumed after all: tickline rerun {runs[0].name}",
        )
    raise ConfigError(
        f"no {what} failed: every one is completed", remedy="start one: tickline nightly"
    )


def is_resumable(run: FlowRun) -> bool:
    """Whether the run started and did not complete.

    Excludes scheduled runs and runs refused or cancelled because another was running.
    """
    return bool(
        run.start_time
        and run.state
        and not run.state.is_completed()
        and BusyError.__name__ not in (run.state.message or "")
    )


def is_cancelled(run: FlowRun) -> bool:
    """Whether a person cancelled it, or is about to have done so."""
    return run.state is not None and (run.state.is_cancelled() or run.state.is_cancelling())


def flow_of(run: FlowRun) -> str:
    """Return the name of a run's flow."""
    with get_client(sync_client=True) as client:
        return client.read_flow(run.flow_id).name


def _waits(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_paused()


def _newest(flows: Sequence[str]) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=list(flows))),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=200,
        )
