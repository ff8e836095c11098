"""kill -9 during training, then the command that the run printed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from mlflow.tracking import MlflowClient

from model_code.settings import Settings, TrainingSpec
from tests.support.flow import EASY, children, parents, stage_states, tiny

EPOCHS = 16


def test_a_nightly_killed_in_training_is_resumed_by_the_printed_command(
    home: Settings, tmp_path: Path
) -> None:
    goals, night, log = (tmp_path / name for name in ("goals.yaml", "night.yaml", "log.txt"))
    goals.write_text(EASY)
    spec = tiny(
        "simulated:?seed=3&instruments=1&days=2&minutes=2",
        goals=str(goals),
        training=TrainingSpec(epochs=EPOCHS, patience=EPOCHS, batch_size=32),
    )
    night.write_text(spec.model_dump_json())

    with log.open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "nightly", "--spec", str(night)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 200
            while len(list(home.checkpoints.rglob("*.pt"))) < 2:  # two epochs are on disk
                assert run.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        finally:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
    (killed,) = parents(home)
    assert killed.info.status == "RUNNING"  # its process could not report its end
    mlflow = MlflowClient(home.tracking_uri)
    training = children(home, killed.info.run_id)["training"].info.run_id
    before = len(mlflow.get_metric_history(training, "train/loss"))
    assert 0 < before < EPOCHS

    printed = re.search(r"tickline rerun (nightly \S+)", log.read_text())
    assert printed
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "rerun", *printed[1].split()],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no baseline" in done.stdout

    # one parent run, finished; training resumed where it stopped, no epoch twice
    assert [run.info.status for run in parents(home)] == ["FINISHED"]
    nested = children(home, killed.info.run_id)
    assert {run.info.status for run in nested.values()} == {"FINISHED"}
    assert nested["training"].info.run_id == training
    steps = [point.step for point in mlflow.get_metric_history(training, "train/loss")]
    assert sorted(steps) == list(range(1, EPOCHS + 1))  # a killed epoch is logged last
    states = stage_states(printed[1])
    cached = {name for name, state in states.items() if state == "Cached"}
    assert {"feature table", "split", "baseline"} <= cached
