"""All task runs of a flow run: the server hands out 200 at a time, and hears of them late."""

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
QUIET_S = 2.0  # news came up to 1.6 s late
PATIENCE_S = 30.0
POLL_S = 0.25


def plain_name(task_run: str) -> str:
    """A task run's name without the suffix that Prefect adds to unnamed ones."""
    return re.sub(r"-[0-9a-f]{3}$", "", task_run)


def stage_name(task_key: str) -> str:
    """A stage's name from Prefect's task key: the function's name and a hash."""
    return re.sub(r"-[0-9a-f]+$", "", task_key).replace("_", " ")


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


def settled_task_runs(client: SyncPrefectClient, flow_run_id: UUID) -> list[TaskRun]:
    """Those of a flow run that has ended, once its last news have come in.

    A flow tells the server of its tasks by events, which may arrive after the flow's own end: what
    is read at once can lack the last stage, or have it running. They are taken for all when every
    run is at its end and nothing new has come for `QUIET_S`. One whose process was killed may
    never end, so the wait is over `PATIENCE_S` after the flow's end; one of long ago has none.
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
