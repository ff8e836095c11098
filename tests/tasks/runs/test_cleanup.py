"""Runs of dead processes are closed, runs of live processes stay open."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from mlflow.tracking import MlflowClient
from prefect import flow, get_client, task
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Completed, Paused, Running

from flows.runs.rerun import rerun
from infra.process import ProcessId
from model_code.errors import ConfigError
from model_code.settings import NightlySpec, Settings
from tasks.runs import lifecycle, mlflow_runs
from tasks.runs.cleanup import clean_up, process_lives
from tasks.runs.faults import CANCELLED, Fault
from tasks.runs.heartbeat import (
    BEAT_TAG,
    EARLIER_BEAT_TAG,
    EARLIER_PROCESS_TAG,
    PROCESS_TAG,
    SILENT_S,
)
from tasks.runs.lock import LockOwner


@pytest.fixture
def dead() -> ProcessId:
    """A process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = ProcessId.of(child.pid)
    child.kill()
    child.communicate()
    return mark


@pytest.mark.parametrize("deployed", [True, False])
def test_a_workers_process_is_identified_by_host_and_pid(dead: ProcessId, deployed: bool) -> None:
    own = ProcessId.own()
    run = FlowRun(flow_id=uuid4(), deployment_id=uuid4() if deployed else None)
    for process, expected in (
        (f"{own.host}:{own.pid}", True),
        (f"{own.host}:{dead.pid}", False),
        (f"elsewhere:{own.pid}", None),
        (None, None),
    ):
        found = process_lives(run.model_copy(update={"infrastructure_pid": process}))
        assert found is (expected if deployed else None)


def test_a_bare_pid_is_the_runs_process_only_if_its_environment_says_so() -> None:
    run = FlowRun(flow_id=uuid4(), deployment_id=uuid4())
    other = FlowRun(flow_id=uuid4(), deployment_id=uuid4())
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": str(run.id)}
    child = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert child.stdout is not None
    child.stdout.readline()
    pid = {"infrastructure_pid": str(child.pid)}
    assert process_lives(run.model_copy(update=pid)) is True
    assert process_lives(other.model_copy(update=pid)) is None
    child.kill()
    child.communicate()
    assert process_lives(run.model_copy(update=pid)) is None


@pytest.fixture
def begun(home: Settings) -> Iterator[FlowRun]:
    """A nightly flow run that Prefect believes to be running."""

    @flow(name="nightly")
    def nothing() -> None: ...

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(nothing, state=Running())
        yield run
        client.set_flow_run_state(run.id, Completed(), force=True)


def track(
    home: Settings,
    flow_run_id: str,
    process: ProcessId,
    beat: float,
    process_tag: str = PROCESS_TAG,
    beat_tag: str = BEAT_TAG,
) -> tuple[str, str]:
    mlflow = MlflowClient(home.tracking_uri)
    identity = {mlflow_runs.FLOW_RUN_TAG: flow_run_id}
    marks = {process_tag: process.model_dump_json(), beat_tag: str(beat)}
    parent = mlflow_runs.continue_or_start(mlflow, home, name="n", identity=identity, tags=marks)
    return parent, mlflow_runs.nested(mlflow, home, parent, "training")


def status(home: Settings, *runs: str) -> set[str]:
    mlflow = MlflowClient(home.tracking_uri)
    return {mlflow.get_run(run).info.status for run in runs}


def state_of(run: FlowRun) -> str | None:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
    return state.name if state else None


def test_runs_of_a_dead_process_are_closed_once(
    home: Settings, begun: FlowRun, dead: ProcessId
) -> None:
    runs = track(home, str(begun.id), dead, time.time())
    found = clean_up(home)
    assert found.crashed == (begun.name,)
    assert found.closed == ("n",)
    assert status(home, *runs) == {"KILLED"}
    assert state_of(begun) == "Crashed"
    assert clean_up(home) == found.model_copy(update={"crashed": (), "closed": ()})


def test_runs_that_an_earlier_version_left_open_are_closed(
    home: Settings, begun: FlowRun, dead: ProcessId
) -> None:
    runs = track(home, str(begun.id), dead, time.time(), EARLIER_PROCESS_TAG, EARLIER_BEAT_TAG)
    assert clean_up(home).closed == ("n",)
    assert status(home, *runs) == {"KILLED"}


def test_a_run_that_died_while_a_person_cancelled_it_is_cancelled(
    home: Settings, begun: FlowRun, dead: ProcessId
) -> None:
    parent, _ = track(home, str(begun.id), dead, time.time())
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(begun.id, Cancelling(), force=True)
    found = clean_up(home)
    assert (found.crashed, found.cancelled, found.closed) == ((), (begun.name,), ("n",))
    assert state_of(begun) == "Cancelled"
    run = MlflowClient(home.tracking_uri).get_run(parent)
    assert Fault.model_validate_json(run.data.tags[mlflow_runs.FAULT_TAG]) == CANCELLED


def test_a_kill_leaves_no_cause_of_an_earlier_attempt(
    home: Settings, begun: FlowRun, dead: ProcessId
) -> None:
    parent, _ = track(home, str(begun.id), dead, time.time())
    mlflow = MlflowClient(home.tracking_uri)
    mlflow.set_tag(parent, mlflow_runs.FAULT_TAG, CANCELLED.model_dump_json())
    assert clean_up(home).crashed == (begun.name,)
    assert mlflow_runs.FAULT_TAG not in mlflow.get_run(parent).data.tags


def test_the_running_task_of_a_dead_process_is_crashed_too(
    home: Settings, begun: FlowRun, dead: ProcessId
) -> None:
    @task
    def train() -> None: ...

    with get_client(sync_client=True) as client:
        states: tuple[State[None], ...] = Running(), Completed()
        at, done = (
            client.create_task_run(train, begun.id, str(key), state=state)
            for key, state in enumerate(states)
        )
        clean_up(home)  # its process is alive
        assert client.read_task_run(at.id).state_name == "Running"
        track(home, str(begun.id), dead, time.time())
        clean_up(home)
        assert client.read_task_run(at.id).state_name == "Crashed"
        assert client.read_task_run(done.id).state_name == "Completed"


def test_runs_of_live_processes_and_of_the_caller_stay_open(
    home: Settings, begun: FlowRun, dead: ProcessId
) -> None:
    runs = track(home, str(begun.id), ProcessId.own(), 0.0)
    assert clean_up(home).closed == ()
    MlflowClient(home.tracking_uri).set_tag(runs[0], PROCESS_TAG, dead.model_dump_json())
    assert clean_up(home, own=str(begun.id)).closed == ()
    assert status(home, *runs) == {"RUNNING"}
    assert state_of(begun) == "Running"


def test_a_run_of_another_machine_is_closed_without_heartbeat(
    home: Settings, begun: FlowRun
) -> None:
    far = ProcessId.own().model_copy(update={"host": "elsewhere"})
    runs = track(home, str(begun.id), far, time.time() - SILENT_S / 2)
    assert clean_up(home).closed == ()
    MlflowClient(home.tracking_uri).set_tag(runs[0], BEAT_TAG, str(time.time() - 2 * SILENT_S))
    assert clean_up(home).closed == ("n",)
    assert status(home, *runs) == {"KILLED"}


def test_a_paused_flow_run_without_a_process_stays_open(
    home: Settings, begun: FlowRun, dead: ProcessId
) -> None:
    runs = track(home, str(begun.id), dead, time.time())
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(begun.id, Paused(), force=True)
    assert clean_up(home).closed == ()
    assert status(home, *runs) == {"RUNNING"}


def test_a_nested_run_whose_parent_has_ended_is_closed(home: Settings, dead: ProcessId) -> None:
    parent, child = track(home, "no such run", ProcessId.own(), time.time())
    mlflow = MlflowClient(home.tracking_uri)
    mlflow.set_terminated(parent, "FINISHED")
    assert clean_up(home).closed == ("training",)
    assert status(home, child) == {"KILLED"}


def test_a_lock_owner_on_another_machine_is_not_judged_from_here(
    home: Settings, begun: FlowRun, dead: ProcessId
) -> None:
    home.home.mkdir(parents=True, exist_ok=True)
    path = home.home / "nightly.holder"
    far = ProcessId.own().model_copy(update={"host": "elsewhere", "boot": "another"})
    path.write_text(LockOwner(process=far, flow_run_id=str(begun.id)).model_dump_json())
    assert clean_up(home).crashed == ()  # a shared folder: it may be running there
    assert clean_up(home, own="who holds the lock").crashed == (begun.name,)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(begun.id, Running(), force=True)
    path.write_text(LockOwner(process=dead, flow_run_id=str(begun.id)).model_dump_json())
    assert clean_up(home).crashed == (begun.name,)


@pytest.mark.parametrize(
    ("state", "lives", "left"),
    [
        (Paused(), False, True),  # it waits for a decision, without a process
        (Running(), True, True),
        (Running(), False, False),
        (Completed(), False, False),
    ],
)
def test_an_open_promotion_outlasts_its_parent_run(
    home: Settings, begun: FlowRun, dead: ProcessId, state: State[None], lives: bool, left: bool
) -> None:
    parent, child = track(home, "no such run", ProcessId.own(), time.time())
    mlflow = MlflowClient(home.tracking_uri)
    mlflow.set_terminated(parent, "FINISHED")
    process = ProcessId.own() if lives else dead
    marks = {mlflow_runs.PROMOTION_TAG: str(begun.id), PROCESS_TAG: process.model_dump_json()}
    mlflow_runs.set_tags(mlflow, child, marks)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(begun.id, state, force=True)
    assert clean_up(home).closed == (() if left else ("training",))
    assert status(home, child) == ({"RUNNING"} if left else {"KILLED"})


def test_a_live_run_of_another_machine_is_not_rerun(home: Settings, begun: FlowRun) -> None:
    far = ProcessId.own().model_copy(update={"host": "elsewhere"})
    track(home, str(begun.id), far, time.time())
    with pytest.raises(ConfigError, match="is running on another machine"):
        rerun(home, str(begun.id), say=print)
    assert state_of(begun) == "Running"


def test_a_run_has_its_owner_before_it_is_running(
    home: Settings, dead: ProcessId, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    @flow(name="nightly")
    def night() -> str:
        with lifecycle.tracked(home, NightlySpec(), simulated=True) as run:
            return run.mlflow_run_id

    def look(*_: object, **__: object) -> None:
        (run,) = MlflowClient(home.tracking_uri).search_runs(
            [mlflow_runs.experiment_id(MlflowClient(home.tracking_uri), home)]
        )
        mark = ProcessId.model_validate_json(run.data.tags[PROCESS_TAG])
        seen.append(mark.lives and run.info.status == "RUNNING")
        raise RuntimeError("Prefect is away")

    with monkeypatch.context() as broken:
        # no later call sets the owner
        broken.setattr("tasks.runs.lifecycle.create_link_artifact", look)
        broken.setattr("tasks.runs.heartbeat.mlflow_runs.set_tags", lambda *_: None)
        with pytest.raises(RuntimeError, match="Prefect is away"):
            night()
    assert seen == [True]
    mlflow = MlflowClient(home.tracking_uri)
    (run,) = mlflow.search_runs([mlflow_runs.experiment_id(mlflow, home)])
    assert run.info.status == "FAILED"
    # a continued run has its new owner from the start
    mlflow_runs.set_tags(mlflow, run.info.run_id, {PROCESS_TAG: dead.model_dump_json()})
    mlflow_runs.continue_or_start(
        mlflow,
        home,
        name="n",
        identity={mlflow_runs.FLOW_RUN_TAG: run.data.tags[mlflow_runs.FLOW_RUN_TAG]},
        tags={},
        marks={PROCESS_TAG: ProcessId.own().model_dump_json()},
    )
    assert clean_up(home).closed == ()
