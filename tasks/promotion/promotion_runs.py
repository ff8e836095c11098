"""Find promotion runs in Prefect."""

from prefect import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

FLOW = "promote"
OPEN = (StateType.PAUSED, StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED)


def open_runs() -> list[FlowRun]:
    """Return promotions that have not ended, oldest first."""
    states = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(OPEN)))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
            flow_run_filter=FlowRunFilter(state=states),
        )
    return sorted(found, key=lambda run: str(run.created))


def runs_of(version: int) -> list[FlowRun]:
    """Return the promotions of a version, ended or not, of every home, the newest first."""
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
            sort=FlowRunSort.START_TIME_DESC,  # the server returns the first 200
        )
    runs = [run for run in found if str(run.parameters.get("version")) == str(version)]
    return sorted(runs, key=lambda run: str(run.created), reverse=True)
