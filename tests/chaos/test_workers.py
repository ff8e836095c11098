"""SIGKILL of the Prefect worker in several stages of a nightly, one after the other."""

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

from tasks.runs.mlflow_runs import FLOW_RUN_TAG
from tasks.runs.task_runs import task_runs
from tests.chaos.harness import NEVER_CACHED, ROOT, TIMEOUT_S, Home, Row, StageRun
from tests.support.commands import make_pool, prefect
from tests.support.flow import schedule_run

POLL_S = 0.02
STAGES = ("validate", "train", "export", "benchmark")  # as the names of their task runs begin


class Worker:
    """A worker; the nightly that it started notices its death."""

    def __init__(self, home: Home) -> None:
        with (home.spec.parent / "worker.log").open("ab") as output:
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
    """Return while the stage is running."""
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
    """A nightly whose worker was killed ends within a minute, and `tickline why` says so."""
    deadline = time.monotonic() + 60
    said = home.why()
    while "continue with" not in said:
        assert time.monotonic() < deadline, said
        said = home.why()
    assert "machine" in said, said


def cached_after_each(runs: list[StageRun]) -> tuple[int, int]:
    """How many stages came back Cached in the attempts after the first, and how many had finished.

    Every finished stage must come back. The stage that was killed may: its result may have been
    recorded already.
    """
    cached_stages = finished_stages = 0
    for number in range(2, max(run.attempt for run in runs) + 1):
        before = {run.name: run for run in runs if run.attempt == number - 1}
        finished = {
            name
            for name, run in before.items()
            if run.state in {"Completed", "Cached"} and run.stage not in NEVER_CACHED
        }
        cached = {run.name for run in runs if run.attempt == number and run.state == "Cached"}
        assert finished <= cached
        assert cached - finished <= before.keys()
        cached_stages += len(cached & finished)
        finished_stages += len(finished)
    return cached_stages, finished_stages


def test_worker_killed_in_several_stages(
    disturbed: Home, undisturbed: Home, table: list[Row]
) -> None:
    with temporary_settings({PREFECT_API_URL: disturbed.settings.prefect_api_url}):
        run_id, took = kill_workers(disturbed)
    disturbed.compare(undisturbed, interrupted=STAGES)
    (parent,) = disturbed.parents()
    assert parent.data.tags[FLOW_RUN_TAG] == str(run_id)
    runs = disturbed.stage_runs()
    attempts = {run.attempt for run in runs}
    assert attempts == set(range(1, len(STAGES) + 2))
    cached, finished = cached_after_each(runs)
    where = ", ".join(f"`{stage}`" for stage in STAGES)
    happened = (
        f"`tickline rerun --last-failed` after each; the same run completed in attempt "
        f"{max(attempts)}; {cached} of {finished} finished stages Cached"
    )
    table.append(Row(f"SIGKILL of the worker in {where}", happened, took))


def kill_workers(disturbed: Home) -> tuple[UUID, float]:
    """Kill a worker in each stage, then let one finish; the flow run and the last one's seconds."""
    variables = disturbed.variables()
    make_pool(env=variables)
    prefect("deploy", "--name", "nightly", env=variables)
    spec = json.loads(disturbed.spec.read_text())
    run = schedule_run("nightly/nightly", {"spec": spec})
    for stage in STAGES:
        worker = Worker(disturbed)
        try:
            await_stage(run.id, stage)
        finally:
            worker.kill()
        await_death(disturbed)
        rerun = disturbed.invoke("rerun", "--last-failed")
        assert rerun.exit_code == 0, rerun.output
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
    return run.id, time.monotonic() - begun
