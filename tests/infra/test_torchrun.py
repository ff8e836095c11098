"""A training on several processes: it trains as one, survives a kill, and reports its error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from infra import torchrun
from infra.torchrun import ProcessesFailedError, train_on
from model_code.artifacts import ArtifactStore
from model_code.errors import ConfigError
from model_code.features.dataset import FeatureTable
from model_code.features.split import split
from model_code.market.schema import InstrumentDay
from model_code.models.network import state_digest
from model_code.settings import FeatureSpec, NetworkSpec, SplitSpec, TrainingSpec
from model_code.training.job import JOB, TrainingJob, read_result
from model_code.training.run import EpochMetrics
from tests.support.market import DATES, SYMBOLS, ticks
from tests.support.tables import build_table

pytestmark = pytest.mark.slow
# without dropout and mirror images, which each process draws for itself
SPEC = TrainingSpec(
    epochs=3, windows_per_epoch=256, batch_size=32, processes=2, patience=9, mirror=False
)
NETWORK = NetworkSpec(d_model=16, heads=2, layers=1, feed_forward=32, dropout=0.0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A job on simulated ticks of two dates, with its artefacts."""
    home = tmp_path_factory.mktemp("job")
    store = ArtifactStore(home / "artifacts")
    days = []
    for seed, date in enumerate(DATES):
        days.append((InstrumentDay(date, SYMBOLS[0], 3000), home / f"{date}.parquet"))
        pq.write_table(ticks(3000, seed, date=date), days[-1][1])
    table = build_table(store, days, FeatureSpec(), simulated=True)
    with store.scratch() as scratch:
        (scratch / "split").mkdir()
        chosen = split(FeatureTable.open(store, table), SplitSpec(), DATES[-1])
        chosen.save(scratch / "split")
        windows = store.put(scratch / "split")
    return TrainingJob(
        store=store.root,
        table=table,
        windows=windows,
        network=NETWORK,
        training=SPEC,
        checkpoints=home / "unused",
    )


def job(inputs: TrainingJob, folder: Path, **changes: object) -> TrainingJob:
    training = inputs.training.model_copy(update=changes)
    return inputs.model_copy(update={"training": training, "checkpoints": folder / "checkpoints"})


def losses(history: tuple[EpochMetrics, ...]) -> list[float]:
    return [epoch.train_loss for epoch in history]


def test_two_processes_train_as_one(inputs: TrainingJob, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    seen: list[EpochMetrics] = []
    two = train_on(job(inputs, tmp_path), 2, tmp_path / "files", on_epoch=seen.append)
    one = job(inputs, tmp_path / "one").run()
    # the shares of a batch add up to the batch; what differs is the order of the sums
    np.testing.assert_allclose(losses(two.history), losses(one.history), rtol=1e-3)
    assert tuple(seen) == two.history
    (tmp_path / "again").mkdir()
    again = train_on(job(inputs, tmp_path), 2, tmp_path / "again")
    assert again.resumed_from == SPEC.epochs
    assert state_digest(again.model.state_dict()) == state_digest(two.model.state_dict())


def test_a_killed_process_costs_no_finished_epoch(inputs: TrainingJob, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(epoch: EpochMetrics) -> None:
        """Kill one rank after the first epoch, as the kernel does when memory is short."""
        if not killed:
            ranks = [
                process
                for process in psutil.Process().children(recursive=True)
                if "model_code.training.job" in process.cmdline()
                and "torch.distributed.run" not in process.cmdline()
                and "infra.exit_with_parent" not in process.cmdline()
            ]
            assert len(ranks) == 2
            killed.append(ranks[-1].pid)
            os.kill(ranks[-1].pid, signal.SIGKILL)

    (tmp_path / "files").mkdir()
    # enough windows that the kill comes before the end
    long = job(inputs, tmp_path, epochs=4, windows_per_epoch=1024)
    result = train_on(long, 2, tmp_path / "files", on_epoch=kill)
    assert killed
    assert result.resumed_from is not None
    assert result.resumed_from >= 1
    assert [epoch.epoch for epoch in result.history] == [1, 2, 3, 4]
    (tmp_path / "straight").mkdir()
    straight = job(inputs, tmp_path / "other", epochs=4, windows_per_epoch=1024)
    undisturbed = train_on(straight, 2, tmp_path / "straight")
    assert losses(result.history) == losses(undisturbed.history)


def test_an_error_of_the_training_is_raised_as_it_is(inputs: TrainingJob, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    with pytest.raises(ConfigError, match="31 is not divisible by 2 processes") as caught:
        train_on(job(inputs, tmp_path, batch_size=31), 2, tmp_path / "files")
    assert "multiple of 2" in caught.value.remedy


def test_processes_that_cannot_start_say_so(
    inputs: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [sys.executable, "-c", "raise MemoryError('too little')"]
    monkeypatch.setattr(torchrun, "torchrun", lambda _: broken)
    with pytest.raises(ProcessesFailedError, match="MemoryError: too little") as caught:
        train_on(job(inputs, tmp_path), 2, tmp_path)
    assert "training.processes=1" in caught.value.remedy


def test_no_process_outlives_the_training(
    inputs: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(torchrun, "torchrun", lambda _: waiting)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("infra.torchrun.time.sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        train_on(job(inputs, tmp_path), 2, tmp_path)
    left = [
        each
        for each in psutil.Process().children(recursive=True)
        if str(tmp_path) in " ".join(each.cmdline())
    ]
    assert left == []


def test_two_launchers_meet_at_an_address(inputs: TrainingJob, tmp_path: Path) -> None:
    """As on two hosts: one process each, the address of the first."""
    from infra.servers import free_port

    (tmp_path / JOB).write_text(job(inputs, tmp_path).model_dump_json())
    meeting = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", *meeting]
    command += ["-m", "model_code.training.job", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    try:
        said = [each.communicate(timeout=300)[0].decode()[-2000:] for each in both]
    finally:
        for each in both:
            each.kill()
    assert [each.returncode for each in both] == [0, 0], said
    result = read_result(tmp_path)
    alone = job(inputs, tmp_path / "one").run()
    np.testing.assert_allclose(losses(result.history), losses(alone.history), rtol=1e-3)
