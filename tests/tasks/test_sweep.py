"""Runs of dead processes are ended, those of living ones left alone."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from mlflow.tracking import MlflowClient
from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Paused, Running

from infra.process import Mark
from model_code.settings import Settings
from tasks import tracking
from tasks.heartbeat import BEAT_TAG, PROCESS_TAG, SILENT_S
from tasks.sweep import sweep


@pytest.fixture
def dead() -> Mark:
    """A process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = Mark.of(child.pid)
    child.kill()
    child.communicate()
    return mark


@pytest.fixture
def begun(home: Settings) -> Iterator[FlowRun]:
    """A nightly flow run that Prefect believes to be running."""

    @flow(name="nightly")
    def nothing() -> None: ...

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(nothing, state=Running())
        yield run
        client.set_flow_run_state(run.id, Completed(), force=True)


def track(home: Settings, flow_run_id: str, process: Mark, beat: float) -> tuple[str, str]:
    mlflow = MlflowClient(home.tracking_uri)
    identity = {tracking.FLOW_RUN_TAG: flow_run_id}
    marks = {PROCESS_TAG: process.model_dump_json(), BEAT_TAG: str(beat)}
    parent = tracking.continue_or_start(mlflow, home, name="n", identity=identity, tags=marks)
    return parent, tracking.nested(mlflow, home, parent, "training")


def status(home: Settings, *runs: str) -> set[str]:
    mlflow = MlflowClient(home.tracking_uri)
    return {mlflow.get_run(run).info.status for run in runs}


def state_of(run: FlowRun) -> str | None:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
    return state.name if state else None


def test_a_dead_process_is_swept_up_once(home: Settings, begun: FlowRun, dead: Mark) -> None:
    runs = track(home, str(begun.id), dead, time.time())
    swept = sweep(home)
    assert swept.crashed == (begun.name,)
    assert swept.closed == ("n",)
    assert status(home, *runs) == {"KILLED"}
    assert state_of(begun) == "Crashed"
    assert sweep(home) == swept.model_copy(update={"crashed": (), "closed": ()})


def test_the_living_and_the_asking_are_left_alone(
    home: Settings, begun: FlowRun, dead: Mark
) -> None:
    runs = track(home, str(begun.id), Mark.own(), 0.0)
    assert sweep(home).closed == ()
    MlflowClient(home.tracking_uri).set_tag(runs[0], PROCESS_TAG, dead.model_dump_json())
    assert sweep(home, own=str(begun.id)).closed == ()
    assert status(home, *runs) == {"RUNNING"}
    assert state_of(begun) == "Running"


def test_another_machine_is_given_up_when_its_heart_is_silent(
    home: Settings, begun: FlowRun
) -> None:
    far = Mark.own().model_copy(update={"host": "elsewhere"})
    runs = track(home, str(begun.id), far, time.time() - SILENT_S / 2)
    assert sweep(home).closed == ()
    MlflowClient(home.tracking_uri).set_tag(runs[0], BEAT_TAG, str(time.time() - 2 * SILENT_S))
    assert sweep(home).closed == ("n",)
    assert status(home, *runs) == {"KILLED"}


def test_a_paused_flow_has_no_process_and_is_left_alone(
    home: Settings, begun: FlowRun, dead: Mark
) -> None:
    runs = track(home, str(begun.id), dead, time.time())
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(begun.id, Paused(), force=True)
    assert sweep(home).closed == ()
    assert status(home, *runs) == {"RUNNING"}


def test_a_nested_run_whose_parent_has_ended_is_closed(home: Settings, dead: Mark) -> None:
    parent, child = track(home, "no such run", Mark.own(), time.time())
    mlflow = MlflowClient(home.tracking_uri)
    mlflow.set_terminated(parent, "FINISHED")
    assert sweep(home).closed == ("training",)
    assert status(home, child) == {"KILLED"}
