"""SIGKILL of a Prefect worker in one stage of its night after the other."""

import json
import os
import signal
import subprocess
import sys
import time
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.runs.task_runs import task_runs
from tests.chaos.harness import ROOT, TIMEOUT_S, Home, Row
from tests.support.commands import make_pool, prefect
from tests.support.flow import schedule_run

POLL_S = 0.02
STAGES = ("validate", "train", "export", "benchmark")  # as their task runs are named at first


class Worker:
    """A worker; what it started notices that it is gone."""

    def __init__(self, home: Home) -> None:
        with (home.night.parent / "worker.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "worker"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=home.variables(),
                cwd=ROOT,
                start_new_session=True,
            )

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def await_stage(run_id: UUID, stage: str) -> None:
    """Return while the stage is at work."""
    deadline = time.monotonic() + TIMEOUT_S
    with get_client(sync_client=True) as client:
        while not any(
            found.name.startswith(stage) and found.state_type == StateType.RUNNING
            for found in task_runs(client, run_id)
        ):
            state = client.read_flow_run(run_id).state
            assert state is None or not state.is_final(), state
            assert time.monotonic() < deadline, stage
            time.sleep(POLL_S)


def await_death(home: Home) -> None:
    """A night whose worker is gone ends by itself within seconds, and `tickline why` says so."""
    deadline = time.monotonic() + 60
    said = home.why()
    while "continue with" not in said:
        assert time.monotonic() < deadline, said
        said = home.why()
    assert "machine" in said, said


def test_worker_killed_in_one_stage_after_the_other(
    disturbed: Home, undisturbed: Home, table: list[Row]
) -> None:
    with temporary_settings({PREFECT_API_URL: disturbed.settings.prefect_api_url}):
        kill_workers(disturbed, table)
    disturbed.compare(undisturbed)


def kill_workers(disturbed: Home, table: list[Row]) -> None:
    variables = disturbed.variables()
    make_pool(env=variables)
    prefect("deploy", "--name", "nightly", env=variables)
    spec = json.loads(disturbed.night.read_text())
    run = schedule_run("nightly/nightly", {"spec": spec})
    for stage in STAGES:
        worker = Worker(disturbed)
        try:
            await_stage(run.id, stage)
        finally:
            worker.kill()
        await_death(disturbed)
        disturbed.run("rerun", "--last-failed").succeed()
    begun = time.monotonic()
    worker = Worker(disturbed)
    try:
        with get_client(sync_client=True) as client:
            while not (state := client.read_flow_run(run.id).state) or not state.is_final():
                assert time.monotonic() < begun + TIMEOUT_S
                time.sleep(1.0)
    finally:
        worker.kill()
    assert state.is_completed(), state.message
    table.append(
        Row(
            f"SIGKILL of the worker in {', '.join(f'`{stage}`' for stage in STAGES)}",
            "`tickline rerun --last-failed` after each; another worker went on with the same run",
            time.monotonic() - begun,
        )
    )
