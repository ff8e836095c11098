"""A command that fails prints one panel: nothing of Prefect's above or below it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.cli.__main__ import INTERRUPTED
from infra import auth
from infra.servers import HOST, free_port, prefect_command, started
from model_code.settings import Settings, TrainingSpec
from tests.support.cli import RUN, running
from tests.support.flow import EASY, SIMULATED, tiny

PANEL = "tickline failed"
LONG = 400


@pytest.fixture(autouse=True)
def logs_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user runs it."""
    monkeypatch.delenv("PREFECT_LOGGING_TO_API_ENABLED", raising=False)


def require_one_panel(printed: str) -> None:
    assert printed.count(PANEL) == 1, printed
    for noise in ("Traceback", "Error logging", "Finished in state", "Crash detected", "Aborted"):
        assert noise not in printed, printed
    assert printed.rstrip().endswith("╯"), printed  # nothing comes after it


def failing(*arguments: object) -> str:
    """Run a command that must fail; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        cwd=Path(__file__).resolve().parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    return done.stdout


def night(folder: Path, **changes: object) -> Path:
    """A specification whose training lasts until it is stopped."""
    goals, spec = folder / "goals.yaml", folder / "night.yaml"
    goals.write_text(EASY)
    endless = TrainingSpec(epochs=500, patience=500, batch_size=32)
    values = {"goals": str(goals), "training": endless} | changes
    spec.write_text(tiny(SIMULATED, **values).model_dump_json())
    return spec


def test_a_wrong_market(home: Settings, tmp_path: Path) -> None:
    printed = failing("nightly", "--data", tmp_path / "nowhere")
    require_one_panel(printed)
    assert "cannot open the market store" in printed


def test_goals_that_cannot_be_judged(home: Settings, tmp_path: Path) -> None:
    spec = night(tmp_path)
    (tmp_path / "goals.yaml").write_text("goals: [{name: a, metric: nonsense, kind: nonsense}]")
    printed = failing("nightly", "--spec", spec)
    require_one_panel(printed)
    assert "goals are malformed" in printed


def test_ctrl_c_in_training(home: Settings, tmp_path: Path) -> None:
    log = tmp_path / "printed"
    with running(log, "nightly", "--spec", night(tmp_path)) as command:
        command.until(lambda: list(home.checkpoints.rglob("*.pt")), LONG)
        assert command.interrupt(LONG) == INTERRUPTED
    printed = log.read_text()
    require_one_panel(printed)
    assert "stopped by Ctrl-C" in printed
    assert "tickline rerun --last-failed" in printed


def test_a_server_that_is_gone_in_mid_run(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, log = free_port(), tmp_path / "printed"
    own = home.resolved(prefect_api_url=None)
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")  # it waits for minutes otherwise
    health = f"http://{HOST}:{port}/api/health"
    with started(
        "prefect-server", prefect_command(port), health, own, auth.server_environment(own)
    ) as launcher:
        monkeypatch.setenv("TICKLINE_PREFECT_API_URL", f"http://{HOST}:{port}/api")
        spec = night(tmp_path, training=TrainingSpec(epochs=3, patience=3, batch_size=32))
        with running(log, "nightly", "--spec", spec) as command:
            command.until(lambda: list(home.checkpoints.rglob("*.pt")), LONG)
            for child in psutil.Process(launcher).children(recursive=True):
                os.kill(child.pid, signal.SIGKILL)
            assert command.process.wait(LONG) == 1
    printed = log.read_text()
    require_one_panel(printed)
    assert "Prefect" in printed
