"""Run tickline commands in a home folder, disturb them, and compare what is left."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from infra.servers import environment
from model_code.artifacts import hash_path
from model_code.settings import MODEL_NAME, Settings, TrainingSpec
from tasks.runs import mlflow_runs
from tests.support.flow import tiny

ROOT = Path(__file__).resolve().parents[2]
SIMULATED = "simulated:?seed=3&instruments=1&days=2&minutes=2"
EASY = """
goals:
  - {name: finite, metric: non_finite, kind: threshold, maximum: 0}
  - {name: like FP32, metric: max_abs_dp, kind: threshold, maximum: 0.02}
  - {name: no worse, metric: auc, kind: min-improvement, limit: 0.0, unit: absolute}
"""
TIMEOUT_S = 280
# what holds times of the clock differs between any two runs; TorchScript numbers its scopes anew
UNEQUAL = {"benchmark", "requests", "engine.json", "model.ts"}


class Row(NamedTuple):
    """One line of the table."""

    fault: str
    happened: str
    recovery_s: float


def markdown(rows: list[Row]) -> str:
    """The table of docs/reliability.md."""
    lines = ["| fault | what happened | seconds to recover |", "|---|---|---|"]
    lines += [f"| {row.fault} | {row.happened} | {row.recovery_s:.0f} |" for row in rows]
    return "\n".join(lines)


@dataclass
class Command:
    """A running tickline command."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def succeed(self) -> float:
        """Wait for its end, which must be a good one; seconds it took."""
        assert self.end() == 0, self.text
        return time.monotonic() - self.started

    def die(self) -> None:
        assert self.end() == -signal.SIGKILL, self.text
        self.seconds = time.monotonic() - self.started

    def fail(self) -> str:
        assert self.end() == 1, self.text
        return self.text


@dataclass
class Home:
    """A home folder and commands in it."""

    settings: Settings
    night: Path
    commands: list[Command] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, prefect_url: str, **changes: str) -> Self:
        folder.mkdir(parents=True, exist_ok=True)
        goals, night = folder / "goals.yaml", folder / "night.yaml"
        goals.write_text(EASY)
        training = TrainingSpec(epochs=4, patience=4, batch_size=32, learning_rate=2e-3)
        night.write_text(tiny(SIMULATED, goals=str(goals), training=training).model_dump_json())
        home = Settings(home=folder / "home", prefect_api_url=prefect_url, **changes).resolved()
        home.home.mkdir(exist_ok=True)
        return cls(home, night)

    def variables(self) -> dict[str, str]:
        own = {"TICKLINE_PREFECT_API_URL": str(self.settings.prefect_api_url)}
        if self.settings.mlflow_tracking_uri:
            own["TICKLINE_MLFLOW_TRACKING_URI"] = self.settings.mlflow_tracking_uri
        quick = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "COLUMNS": "200"}
        return os.environ | environment(self.settings) | own | quick

    def run(self, *command: str, fault: tuple[str, str] | None = None) -> Command:
        module = ["tests.chaos.victim", *fault] if fault else ["flows.cli"]
        log = self.night.parent / f"command-{len(self.commands)}.log"
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

    def nightly(self, fault: tuple[str, str] | None = None) -> Command:
        return self.run("nightly", "--spec", str(self.night), fault=fault)

    def rerun(self, fault: tuple[str, str] | None = None) -> Command:
        return self.run("rerun", "--last-failed", fault=fault)

    def why(self) -> str:
        """What `tickline why` says of the last failed run."""
        command = self.run("why")
        command.succeed()
        return command.text

    def reached(self, command: Command) -> Path:
        """Wait until the victim stands at its stage; remove the file to let it go on."""
        path = self.settings.home / "reached"
        deadline = time.monotonic() + TIMEOUT_S
        while not path.exists():
            assert command.process.poll() is None, command.text
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return path

    def kill_leftovers(self) -> None:
        for command in self.commands:
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(self.settings.tracking_uri)

    def runs(self) -> list[Run]:
        mlflow = self.mlflow
        return list(mlflow.search_runs([mlflow_runs.experiment_id(mlflow, self.settings)]))

    def parents(self) -> list[Run]:
        return [run for run in self.runs() if "mlflow.parentRunId" not in run.data.tags]

    def artefacts(self) -> set[tuple[str, str]]:
        """Name of every file in the store and the hash of each whose bytes must be the same."""
        found: set[tuple[str, str]] = set()
        for entry in self.settings.artifacts.glob("??/*/*"):
            for path in [entry] if entry.is_file() else filter(Path.is_file, entry.rglob("*")):
                equal = not UNEQUAL & {entry.name, path.name}
                name = str(path.relative_to(entry.parent))
                found.add((name, hash_path(path) if equal else ""))
        return found

    def compare(self, other: "Home") -> None:
        """Assert that nothing is lost, doubled, left open or different from the other's."""
        assert self.artefacts() == other.artefacts()
        (mine,), (theirs,) = self.parents(), other.parents()
        assert {run.info.status for run in self.runs()} == {"FINISHED"}
        assert mlflow_runs.ERROR_TAG not in mine.data.tags
        for name in ("auc", "accuracy", "baseline_auc"):
            assert abs(mine.data.metrics[name] - theirs.data.metrics[name]) < 1e-9, name
        versions = self.mlflow.search_model_versions(f"name = '{MODEL_NAME}'")
        assert [int(version.version) for version in versions] == [1]
        staged = list((self.settings.staging_repository / MODEL_NAME).glob("[0-9]*"))
        assert [path.name for path in staged] == ["1"]
