"""A home that moves: `python -m flows.demos.moved_home`.

A small nightly runs in a first home, which is copied and then hidden under another name. The same
nightly runs in the copy: every stage comes back Cached, and nothing is written where the first home
was, which gets its name back.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from model_code.artifacts import hash_path
from model_code.errors import TicklineError
from model_code.settings import NightlySpec

out = Console(highlight=False)
SMALL: dict[str, Any] = {
    "market": "simulated:?seed=3&instruments=1&days=2&minutes=2",
    "validation": {"minimum_rows": 100},
    "split": {"train_windows": 512, "validation_windows": 256, "test_windows": 256},
    "network": {
        "KIND": "conv-transformer", "d_model": 16, "heads": 2, "layers": 1, "feed_forward": 32,
    },
    "training": {"epochs": 2, "batch_size": 32, "learning_rate": 2e-3},
    "attributions": {"windows": 0},
    "benchmark": {
        "engines": ["onnxruntime-fp32", "openvino-fp32"], "warmup": 2, "requests": 40, "rounds": 2,
        "throughput_rounds": 1, "open_loop_requests": 6, "served": False, "concurrent_requests": 20,
    },
}  # fmt: skip
# of a few hundred windows none tells a good model from a bad one
GOALS = """
minimum_events: 1
goals:
  - {name: like FP32, metric: max_abs_dp, kind: threshold, maximum: 0.02}
"""

NEVER_CACHED = ("find champion",)  # it reads the registry


def play(folder: Path) -> str:
    """Run the story in an empty folder, print every stage's state, and return the last line.

    Raises:
        TicklineError: a night fails, a stage is not Cached, or the first home was written to.
    """
    first, second, hidden = (folder / name for name in ("first", "second", "hidden"))
    (folder / "goals.yaml").write_text(GOALS)
    spec = NightlySpec.model_validate(SMALL | {"goals": str(folder / "goals.yaml")})
    (folder / "night.yaml").write_text(spec.model_dump_json())
    out.print(f"[bold]first night[/] in {first}")
    _night(first, folder / "night.yaml")
    computed = _stages(first)
    shutil.copytree(first, second, symlinks=True)
    before = hash_path(first)
    out.print(f"[bold]copied[/] to {second}; the first home is hidden")
    with _hidden(first, hidden):
        _night(second, folder / "night.yaml")
        if first.exists():
            written = ", ".join(str(path) for path in first.rglob("*"))
            raise TicklineError("the copy wrote to the home it came from", where=written)
    if hash_path(first) != before:
        raise TicklineError("the copy changed the home it came from", where=str(first))
    stages = _stages(second)[len(computed) :]
    for stage, state in stages:
        out.print(f"  {state:<9} {stage}")
    fresh = [stage for stage, state in stages if state != "Cached"]
    if fresh or [stage for stage, _ in stages] != [stage for stage, _ in computed]:
        raise TicklineError(
            f"stages of the copy that are not Cached: {', '.join(fresh) or 'some are missing'}",
            where=str(second),
        )
    return f"moved: {len(stages)} of {len(stages)} stages Cached, the first home is unchanged"


@contextmanager
def _hidden(home: Path, name: Path) -> Iterator[None]:
    """Give a home another name for the length of the block."""
    home.rename(name)
    try:
        yield
    finally:
        if home.exists():  # written to, which `play` reports
            home.rename(home.with_name(f"{home.name}-written"))
        name.rename(home)


def _night(home: Path, spec: Path) -> None:
    # with servers of its own, whatever else runs here
    other = ("TICKLINE_", "PREFECT_", "MLFLOW_")
    variables = {name: text for name, text in os.environ.items() if not name.startswith(other)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "nightly", "--spec", str(spec)],
        env=variables | {"TICKLINE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise TicklineError(f"the night failed:\n{done.stdout}{done.stderr}", where=str(home))


def _stages(home: Path) -> list[tuple[str, str]]:
    """Name and state of each cached stage that ended, in order, from the home's log."""
    lines = [
        json.loads(line)
        for log in sorted((home / "logs").glob("tickline-*.jsonl"))
        for line in log.read_text().splitlines()
    ]
    ended = [one for one in lines if one["message"] == "stage ended"]
    return [(one["stage"], one["state"]) for one in ended if one["stage"] not in NEVER_CACHED]


def main() -> None:
    """Play in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="tickline-moved-") as folder:
        try:
            out.print(play(Path(folder)))
        except TicklineError as error:
            out.print(str(error), markup=False)
            sys.exit(1)


if __name__ == "__main__":
    main()
