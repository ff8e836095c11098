"""Find a flow run by name, by id, or the newest that did not complete."""

from collections.abc import Callable, Sequence

from prefect import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from model_code.errors import ConfigError
from tasks.runs.lock import BusyError
from tasks.runs.names import DATE, RERUNNABLE, is_called, reference, short_id

NIGHTLY = "nightly"
EXPLAINED = (*RERUNNABLE, "promote", "rollback")
EVERYTHING = (*EXPLAINED, DATE)


def find_run(
    run: str | None,
    flows: Sequence[str] = RERUNNABLE,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> FlowRun:
    """Find a flow run by name or id; None finds the newest nightly that is not completed.

    Args:
        run: its name, its id or a prefix of the id. Of several runs, the newest is taken.
        flows: to look in.
        say: told the ids, if there are several.

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
    called = [found for found in runs if is_called(found, run)]
    if len(called) > 1:
        others = ", ".join(short_id(found) for found in called[1:6])
        more = f" and {len(called) - 6} older" if len(called) > 6 else ""
        say(
            f"{len(called)} runs are called {run}; this is the newest, {short_id(called[0])}. "
            f"The others: {others}{more}"
        )
    if called:
        return called[0]
    raise ConfigError(
        f"no run named {run}",
        remedy="choose one of: " + ", ".join(reference(found) for found in unfinished[:5])
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
            remedy=f"if it is to be resumed after all: tickline rerun {reference(runs[0])}",
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
