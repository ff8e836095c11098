"""One stage of one instrument-day in a worker process of a task runner: seconds and peak memory."""

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from prefect import flow, task

from infra.cluster.runner import task_runner
from tasks.nightly.features import features
from tasks.nightly.validate import validate

# function, and the field of its result that names the largest artefact
STAGES: dict[str, tuple[Callable[..., Any], str]] = {
    "validation": (validate.fn, "clean"),
    "features": (features.fn, "folder"),
}
Inputs = tuple[Any, ...]
_STATUS = Path("/proc/self/status")


class Stage(NamedTuple):
    """What a worker measured.

    Attributes:
        result: of the stage.
        seconds: of wall time, median of the repeats.
        peak_gib: of the process, with its libraries.
    """

    result: Any
    seconds: float
    peak_gib: float


@flow(persist_result=False, validate_parameters=False)
def at_once(
    stage: str, inputs: Sequence[Inputs], small: Inputs | None, repeats: int
) -> list[Stage]:
    """Run a stage of several days at once, each in a new process, as `--cluster processes:N`.

    Args:
        stage: a key of `STAGES`.
        inputs: of each day: those of the stage's function, the run and the day first.
        small: the same of a small day, computed before the clock starts: imports, compiled code.
        repeats: how often to run it.
    """
    count = len(inputs)
    with task_runner(f"processes:{count}") as runner, TemporaryDirectory() as gate:
        same = {"stage": stage, "small": small, "gate": Path(gate), "workers": count}
        futures = [
            runner.submit(measured, same | {"inputs": each, "repeats": repeats}) for each in inputs
        ]
        return [future.result() for future in futures]


@task(persist_result=False)
def measured(
    stage: str,
    inputs: Inputs,
    small: Inputs | None,
    gate: Path,
    workers: int,
    repeats: int,
) -> Stage:
    """Run a stage in this process once all workers are ready: each leaves a file in `gate`."""
    function, artefact = STAGES[stage]
    if small is not None:
        function(*small)
    (gate / f"{stage} {inputs[1].symbol}").touch()
    while len(list(gate.iterdir())) < workers:
        time.sleep(0.01)
    seconds: list[float] = []
    result = None
    while len(seconds) < repeats:
        if result is not None:  # what is stored already would not be written again
            path = inputs[0].store.path(getattr(result, artefact))
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        started = time.perf_counter()
        result = function(*inputs)
        seconds.append(time.perf_counter() - started)
    return Stage(result, statistics.median(seconds), peak_gib())


def peak_gib() -> float:
    """Largest resident memory of this process so far (proc(5), Linux only)."""
    # not ru_maxrss: a new process inherits that of the one it came from
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
