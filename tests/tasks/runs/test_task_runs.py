"""Task updates that arrive after the end of their flow."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Running

from tasks.runs import task_runs
from tasks.runs.task_runs import plain_name, settled_task_runs

FIRST, LAST = uuid4(), uuid4()
ENDED: State[None] = Completed(name="Cached")


class Server:
    """A fake client: each read returns the next of `looks`."""

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


def test_waits_for_a_stage_still_running_after_its_flow_ended() -> None:
    server = Server({FIRST: ENDED, LAST: Running()}, {FIRST: ENDED, LAST: ENDED})
    found = settled_task_runs(server, uuid4())  # type: ignore[arg-type]
    assert [run.state for run in found] == [ENDED, ENDED]


def test_waits_for_a_stage_not_yet_reported() -> None:
    server = Server({FIRST: ENDED}, {FIRST: ENDED, LAST: ENDED})
    found = settled_task_runs(server, uuid4())  # type: ignore[arg-type]
    assert {run.id for run in found} == {FIRST, LAST}


def test_gives_up_on_a_stage_of_a_dead_process() -> None:
    server = Server({FIRST: ENDED, LAST: Running()})
    found = settled_task_runs(server, uuid4())  # type: ignore[arg-type]
    assert [run.state.name for run in found if run.state] == ["Cached", "Running"]


def test_does_not_wait_long_after_the_flows_end() -> None:
    server = Server({FIRST: Running()}, {FIRST: ENDED})
    server.end = Completed(timestamp=datetime.now(UTC) - timedelta(hours=1))
    found = settled_task_runs(server, uuid4())  # type: ignore[arg-type]
    assert [run.state.name for run in found if run.state] == ["Running"]
    assert len(server.looks) == 1


def test_only_the_suffix_that_prefect_adds_is_left_out() -> None:
    of = {"flow_run_id": uuid4(), "task_key": "fit", "dynamic_key": "3f2ab0"}
    assert plain_name(TaskRun(name="validate-3f2", **of)) == "validate"
    assert plain_name(TaskRun(name="fit model-abc", **of)) == "fit model-abc"
