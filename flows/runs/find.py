"""Find a flow run by name, by id, or the newest that did not complete."""

from prefect import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from model_code.errors import ConfigError
from tasks.runs.lock import BusyError

NIGHTLY = "nightly"
RERUNNABLE = (NIGHTLY, "bench", "backfill")


def find_run(run: str | None) -> FlowRun:
    """Find a flow run by name or id; None finds the newest nightly that is not completed.

    Raises:
        ConfigError: there is none.
    """
    with get_client(sync_client=True) as client:
        names = RERUNNABLE if run else (NIGHTLY,)
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=list(names))),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=200,
        )
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


def flow_of(run: FlowRun) -> str:
    """Return the name of a run's flow."""
    with get_client(sync_client=True) as client:
        return client.read_flow(run.flow_id).name
