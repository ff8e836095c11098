"""A training on several processes of this machine, launched by `torchrun`.

A process that is killed stops the others; torchrun then starts all of them again, and they resume
after the last finished epoch. Source: PyTorch's documentation, torchrun (elastic launch).
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from model_code import machine
from model_code.errors import TicklineError
from model_code.training.job import JOB, TrainingJob, read_epochs, read_result
from model_code.training.result import TrainingResult
from model_code.training.run import EpochMetrics

RESTARTS = 3  # of all processes, after one was killed
GRACE_S = 10
POLL_S = 0.2
OUTPUT = "output.log"
# torchrun shares one store with all starts of the processes and adds no prefix (PyTorch 2.13): a
# process started again may read an address of the start before, and both then wait to be called
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


class ProcessesFailedError(TicklineError):
    """The processes of a training stopped without a result and without an error of their own."""


def train_on(
    job: TrainingJob,
    processes: int,
    folder: Path,
    *,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> TrainingResult:
    """Run the job on several processes and return its result.

    Args:
        job: what to train.
        processes: how many; each has its share of every batch and of the cores.
        folder: empty, for the processes' files.
        on_epoch: called after each newly trained epoch.

    Raises:
        TicklineError: the training's own error, as in one process.
        ProcessesFailedError: the processes failed, more often than they are started again.
    """
    (folder / JOB).write_text(job.model_dump_json())
    log, shown = folder / OUTPUT, sys.stderr.isatty()
    threads = max(1, machine.physical_cores() // processes)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "LOGLEVEL": "ERROR"} | OWN_STORE
    with log.open("wb") as output:
        running = subprocess.Popen(
            [*_wrapper(), *torchrun(processes), str(folder)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=None if shown else output,
        )
    seen = 0
    try:
        while True:
            ended = running.poll() is not None
            epochs = read_epochs(folder)
            for epoch in epochs[seen:]:
                if on_epoch is not None:
                    on_epoch(epoch)
            seen = len(epochs)
            if ended:
                break
            time.sleep(POLL_S)
    finally:
        if running.stdin:
            running.stdin.close()  # the wrapper then stops the processes
        running.wait()
    try:
        return read_result(folder)
    except FileNotFoundError:
        lines = log.read_text(errors="replace").splitlines()
        raise ProcessesFailedError(
            f"the {processes} processes of the training failed {RESTARTS + 1} times, "
            f"exit status {running.returncode}: {_last(lines)}",
            where=str(job.checkpoints),
            remedy="is memory short (free -h)? to continue after the last finished epoch: "
            "tickline rerun --last-failed; on fewer processes: --set training.processes=1",
        ) from None


def torchrun(processes: int) -> list[str]:
    """The command that launches a job's processes, up to its folder."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={processes}", f"--max-restarts={RESTARTS}"),
        *("-m", "model_code.training.job"),
    ]


def _wrapper() -> list[str]:
    return [sys.executable, "-m", "infra.exit_with_parent", f"--grace={GRACE_S}"]


def _last(lines: list[str]) -> str:
    """The last line that names an error; torchrun's own summary follows it."""
    named = [line.strip() for line in lines if "Error" in line or "Signal" in line]
    return named[-1] if named else (lines[-1] if lines else "no output")
