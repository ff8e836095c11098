"""Run tickline commands in a home folder, inject faults, and read what is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self
from unittest.mock import patch
from uuid import UUID

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner, Result

from infra.servers import QUIET, environment
from model_code.settings import MODEL_NAME, Settings, TrainingSpec
from tasks.runs import mlflow_runs
from tasks.runs.task_runs import plain_name, settled_task_runs, stage_name
from tests.chaos.contents import damaged, entries, unreferenced
from tests.support.flow import EASY, QUICK_BENCHMARK, SIMULATED, tiny

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 280
EPOCHS = 4
# pinned: which engine is the fastest, and so which is staged, could differ between two nightlies
BENCHMARK = QUICK_BENCHMARK.model_copy(
    update={"engines": ("onnxruntime-fp32",), "pin": "onnxruntime-fp32"}
)
NEVER_CACHED = {"find days", "find champion"}  # they read the data source and the registry
# plain functions of the flow, not tasks: the stage that starts after each
NEXT_STAGE = {"publish_validation": "features", "publish_outcome": "announce"}
VARIABLES = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "OMP_NUM_THREADS": "1",  # threads that wait for a core of a busy machine train far slower
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "COLUMNS": "200",
}


class Row(NamedTuple):
    """One line of the table; no time where there was nothing to recover from."""

    fault: str
    happened: str
    recovery_s: float | None


def markdown(rows: Sequence[Row]) -> str:
    """The table of docs/reliability.md."""
    lines = ["| fault | what happened | seconds to recover |", "|---|---|---|"]
    for fault, happened, seconds in rows:
        lines.append(f"| {fault} | {happened} | {'–' if seconds is None else f'{seconds:.0f}'} |")
    return "\n".join(lines)


class StageRun(NamedTuple):
    """A task run of a nightly, as the Prefect server has it."""

    attempt: int
    stage: str
    name: str
    state: str
    tries: int


@dataclass
class Command:
    """A running tickline command."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def succeed(self) -> float:
        """Wait for exit status 0; seconds since its start."""
        assert self.end() == 0, self.text
        return time.monotonic() - self.started

    def die(self) -> float:
        """Wait for its SIGKILL; seconds since its start."""
        assert self.end() == -signal.SIGKILL, self.text
        return time.monotonic() - self.started

    def fail(self) -> str:
        """Wait for exit status 1; what it printed."""
        assert self.end() == 1, self.text
        return self.text


class Prepared:
    """Processes that import Tickline ahead of their command, so that a test need not wait."""

    def __init__(self) -> None:
        self._waiting: list[subprocess.Popen[bytes]] = []

    def prepare(self) -> None:
        """Start one more."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.victim"],
            stdin=subprocess.PIPE,
            env=os.environ | QUIET | VARIABLES,
            cwd=ROOT,
        )
        self._waiting.append(process)

    def run(
        self, command: Sequence[str], faults: Sequence[str], variables: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Give the oldest one its command."""
        process = self._waiting.pop(0)
        request = {
            "command": command,
            "faults": faults,
            "variables": dict(variables),
            "log": str(log),
        }
        assert process.stdin
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.close()
        return process

    def close(self) -> None:
        for process in self._waiting:
            process.kill()
            process.wait()
            assert process.stdin
            process.stdin.close()


@dataclass
class Home:
    """A home folder and commands in it."""

    settings: Settings
    spec: Path
    prepared: Prepared | None = None
    commands: list[Command] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        folder: Path,
        prefect_url: str,
        mlflow_template: Path,
        *,
        mlflow_url: str | None = None,
        prepared: Prepared | None = None,
    ) -> Self:
        """Make an empty one.

        Args:
            folder: holds it.
            prefect_url: of a running Prefect server.
            mlflow_template: an empty MLflow database to copy.
            mlflow_url: of a running MLflow server; None: a database in the home folder.
            prepared: run commands in these processes; None: start one for each command.
        """
        folder.mkdir(parents=True, exist_ok=True)
        goals, spec = folder / "goals.yaml", folder / "nightly.yaml"
        goals.write_text(EASY)
        training = TrainingSpec(epochs=EPOCHS, patience=EPOCHS, batch_size=32, learning_rate=2e-3)
        values = tiny(SIMULATED, goals=str(goals), training=training, benchmark=BENCHMARK)
        spec.write_text(values.model_dump_json())
        home = folder / "home"
        home.mkdir(exist_ok=True)
        shutil.copyfile(mlflow_template, home / "mlflow.db")
        settings = Settings(home=home, prefect_api_url=prefect_url, mlflow_tracking_uri=mlflow_url)
        return cls(settings.resolved(), spec, prepared)

    def variables(self) -> dict[str, str]:
        """Environment of its commands."""
        return os.environ | environment(self.settings) | VARIABLES

    def run(self, *command: str, faults: Sequence[str] = ()) -> Command:
        """Start a command in a process of its own, with faults like `kill@features`."""
        log = self.spec.parent / f"command-{len(self.commands)}.log"
        if self.prepared:
            process = self.prepared.run(command, faults, self.variables(), log)
        else:
            module = ["tests.chaos.victim", *faults, "--"] if faults else ["flows.cli"]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", *module, *command],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self.variables(),
                    cwd=ROOT,
                )
        self.commands.append(Command(process, log))
        return self.commands[-1]

    def nightly(self, *faults: str) -> Command:
        return self.run("nightly", "--spec", str(self.spec), faults=faults)

    def rerun(self, *faults: str) -> Command:
        return self.run("rerun", "--last-failed", faults=faults)

    def invoke(self, *command: str) -> Result:
        """Run a command in this process."""
        from flows.cli.__main__ import app

        with patch.dict(os.environ, self.variables()):
            return CliRunner().invoke(app, command)

    def why(self) -> str:
        """What `tickline why` says of the last failed run."""
        done = self.invoke("why")
        assert done.exit_code == 0, done.output
        return done.output

    def refused(self, *command: str) -> str:
        """Run a command that must be refused; its message."""
        done = self.invoke(*command)
        assert done.exit_code == 1, done.output
        return str(done.exception)

    def paused(self, command: Command) -> Path:
        """Wait until it pauses before its stage; remove the file to let it continue."""
        path = self.settings.home / "paused"
        deadline = time.monotonic() + TIMEOUT_S
        while not path.exists():
            assert command.process.poll() is None, command.text
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return path

    def kill_commands(self) -> None:
        for command in self.commands:
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(self.settings.tracking_uri)

    def runs(self) -> list[Run]:
        """All MLflow runs."""
        experiment = self.mlflow.get_experiment_by_name(self.settings.mlflow_experiment)
        return list(self.mlflow.search_runs([experiment.experiment_id])) if experiment else []

    def parents(self) -> list[Run]:
        """The MLflow runs of nightlies."""
        return [run for run in self.runs() if "mlflow.parentRunId" not in run.data.tags]

    def parent_ids(self) -> list[str]:
        return [run.info.run_id for run in self.parents()]

    @contextmanager
    def prefect(self) -> Iterator[SyncPrefectClient]:
        """A client of its Prefect server."""
        changes = {PREFECT_API_URL: self.settings.prefect_api_url}
        with temporary_settings(changes), get_client(sync_client=True) as client:
            yield client

    def stage_runs(self) -> list[StageRun]:
        """Task runs of its only nightly, in the order they started."""
        (parent,) = self.parents()
        flow_run_id = UUID(parent.data.tags[mlflow_runs.FLOW_RUN_TAG])
        with self.prefect() as client:
            found = settled_task_runs(client, flow_run_id)
        return [
            StageRun(
                attempt=run.flow_run_run_count,
                stage=stage_name(run.task_key),
                name=plain_name(run),
                state=str(run.state_name),
                tries=run.run_count,
            )
            for run in sorted(found, key=lambda run: str(run.expected_start_time))
        ]

    def compare(self, other: "Home", interrupted: Collection[str] = ()) -> None:
        """Assert that nothing is lost, doubled, left open or different from the other's.

        Args:
            other: where a nightly ran undisturbed.
            interrupted: stages that may have stored an artefact without recording their result.
        """
        expected = entries(other.settings)
        assert expected
        assert entries(self.settings) == expected
        assert damaged(self.settings) == []
        left = unreferenced(self.settings)
        assert left.keys() <= {entry.artefact for entry in expected if entry.stage in interrupted}
        assert set(left.values()) <= {1}, left
        (mine,), (theirs,) = self.parents(), other.parents()
        assert {run.info.status for run in self.runs()} == {"FINISHED"}
        assert mlflow_runs.ERROR_TAG not in mine.data.tags
        for name in ("quality/auc", "quality/accuracy", "baseline/auc"):
            assert abs(mine.data.metrics[name] - theirs.data.metrics[name]) < 1e-9, name
        versions = self.mlflow.search_model_versions(f"name = '{MODEL_NAME}'")
        assert [int(version.version) for version in versions] == [1]
        staged = list((self.settings.staging_repository / MODEL_NAME).glob("[0-9]*"))
        assert [path.name for path in staged] == ["1"]


def finished_before(stage: str, undisturbed: Sequence[StageRun]) -> list[str]:
    """Names of the cacheable task runs that are over when a stage is reached."""
    stages = [run.stage for run in undisturbed]
    reached = stages.index(NEXT_STAGE.get(stage, stage))
    return [run.name for run in undisturbed[:reached] if run.stage not in NEVER_CACHED]


def cached_after(stops: Sequence[str], home: Home, undisturbed: Home) -> list[str]:
    """Assert that each attempt after a stop got exactly what was finished from the cache.

    Args:
        stops: the stage that each attempt but the last stopped in.
        home: where they were stopped.
        undisturbed: shows the order of the stages.

    Returns:
        For each stop, in words, how many came back Cached.
    """
    order, runs = undisturbed.stage_runs(), home.stage_runs()
    assert {run.attempt for run in runs} == set(range(1, len(stops) + 2))
    told = []
    for number, stage in enumerate(stops, start=2):
        finished = finished_before(stage, order)
        cached = [run.name for run in runs if run.attempt == number and run.state == "Cached"]
        assert cached == finished, stage
        told.append(
            f"{len(cached)} of {len(finished)} finished stages Cached"
            if finished
            else "no stage had finished"
        )
    return told


def same_run(before: Sequence[str], after: Sequence[str]) -> str:
    """Assert that a rerun continued the MLflow run that was there; in words."""
    if not before:
        return "no MLflow run yet"
    assert before == after
    return "same MLflow run"
