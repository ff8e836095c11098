"""All task runs of a flow run: the server hands out 200 at a time."""

from itertools import count
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import TaskRunSort

PAGE = 200


def task_runs(client: SyncPrefectClient, flow_run_id: UUID) -> list[TaskRun]:
    """Every one; eight instruments over twenty days, and a rerun, are more than a page."""
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    found: dict[UUID, TaskRun] = {}
    for offset in count(0, PAGE):
        page = client.read_task_runs(
            flow_run_filter=mine, sort=TaskRunSort.ID_DESC, limit=PAGE, offset=offset
        )
        found |= {run.id: run for run in page}  # one that begins meanwhile moves the others on
        if len(page) < PAGE:
            break
    return list(found.values())
