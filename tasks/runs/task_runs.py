"""Read all task runs of a flow run. The server pages them by 200 and gets updates late."""

import re
import time
from datetime import UTC, datetime
from itertools import count
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import TaskRunSort

PAGE = 200
QUIET_S = 2.0  # updates were measured to arrive up to 1.6 s late
PATIENCE_S = 30.0
POLL_S = 0.25


def plain_name(task_run: TaskRun) -> str:
    """Return a task run's name without the suffix that Prefect adds to those without a name."""
    return task_run.name.removesuffix(f"-{task_run.dynamic_key[:3]}")


def stage_name(task_key: str) -> str:
    """Return a stage's name from Prefect's task key: the function's name and a hash."""
    return re.sub(r"-[0-9a-f]+$", "", task_key).replace("_", " ")


def task_runs(client: SyncPrefectClient, flow_run_id: UUID) -> list[TaskRun]:
    """Read all pages; eight instruments over twenty days and a rerun exceed one page."""
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    found: dict[UUID, TaskRun] = {}
    for offset in count(0, PAGE):
        page = client.read_task_runs(
            flow_run_filter=mine, sort=TaskRunSort.ID_DESC, limit=PAGE, offset=offset
        )
        found |= {run.id: run for run in page}  # a run that starts meanwhile shifts the pages
        if len(page) < PAGE:
            break
    return list(found.values())


def settled_task_runs(client: SyncPrefectClient, flow_run_id: UUID) -> list[TaskRun]:
    """Read the task runs of an ended flow run, once all updates have arrived.

    Task updates reach the server as events, possibly after the flow's own end. An immediate read
    can miss the last stage or show it running. The list counts as complete once every task run has
    ended and nothing has changed for `QUIET_S`. Task runs of a killed process may never end, so
    the wait stops `PATIENCE_S` after the flow's end.
    """
    flow = client.read_flow_run(flow_run_id)
    since = (datetime.now(UTC) - flow.state.timestamp).total_seconds() if flow.state else 0.0
    now = time.monotonic()
    deadline, changed = now + PATIENCE_S - since, now
    before: set[UUID] = set()
    while True:
        found = task_runs(client, flow_run_id)
        ended = {run.id for run in found if run.state is not None and run.state.is_final()}
        now = time.monotonic()
        if ended != before or len(ended) < len(found):
            before, changed = ended, now
        if now > deadline or now - changed >= QUIET_S:
            return found
        time.sleep(POLL_S)
