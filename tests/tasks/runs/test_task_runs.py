"""The last news of a flow's tasks, which come in after its own end."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Completed, Running

from tasks.runs import task_runs
from tasks.runs.task_runs import settled_task_runs

FIRST, LAST = uuid4(), uuid4()
ENDED: State[None] = Completed(name="Cached")


class Server:
    """Stands in for a client: each look finds what the next of `looks` says."""

    def __init__(self, *looks: dict[UUID, State[None]]) -> None:
        self.looks = list(looks)
        self.end: State[None] = Completed()

    def read_flow_run(self, _: UUID) -> SimpleNamespace:
        return SimpleNamespace(state=self.end)

    def read_task_runs(self, **_: object) -> list[SimpleNamespace]:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return [SimpleNamespace(id=run, state=state) for run, state in look.items()]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runs, "POLL_S", 0.01)
    monkeypatch.setattr(task_runs, "QUIET_S", 0.1)
    monkeypatch.setattr(task_runs, "PATIENCE_S", 1.0)


def test_a_stage_said_to_run_after_its_flow_has_ended_is_waited_for() -> None:
    server = Server({FIRST: ENDED, LAST: Running()}, {FIRST: ENDED, LAST: ENDED})
    found = settled_task_runs(server, uuid4())  # type: ignore[arg-type]
    assert [run.state for run in found] == [ENDED, ENDED]


def test_a_stage_not_heard_of_yet_is_waited_for() -> None:
    server = Server({FIRST: ENDED}, {FIRST: ENDED, LAST: ENDED})
    found = settled_task_runs(server, uuid4())  # type: ignore[arg-type]
    assert {run.id for run in found} == {FIRST, LAST}


def test_a_stage_whose_process_died_is_not_waited_for_long() -> None:
    server = Server({FIRST: ENDED, LAST: Running()})
    found = settled_task_runs(server, uuid4())  # type: ignore[arg-type]
    assert [run.state.name for run in found if run.state] == ["Cached", "Running"]


def test_nothing_is_waited_for_long_after_the_end() -> None:
    server = Server({FIRST: Running()}, {FIRST: ENDED})
    server.end = Completed(timestamp=datetime.now(UTC) - timedelta(hours=1))
    found = settled_task_runs(server, uuid4())  # type: ignore[arg-type]
    assert [run.state.name for run in found if run.state] == ["Running"]
    assert len(server.looks) == 1
