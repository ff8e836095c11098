"""A stage whose executions can be counted from outside, in whatever process it ran."""

import os
import time
from pathlib import Path

from tasks.caching.stage import RunRef, stage


def traces(folder: Path) -> list[tuple[int, int]]:
    """(number, pid) of every execution."""
    found = [path.name.split("-")[:2] for path in folder.glob("*-*-*")]
    return sorted((int(number), int(pid)) for number, pid in found)


@stage("square")
def square(run: RunRef, number: int, seconds: float = 0.0) -> int:
    """Square a number after some time; refuse 13. Leaves a file in the home's folder `traces`."""
    if number == 13:
        raise ValueError("thirteen")
    folder = run.settings.home / "traces"
    folder.mkdir(exist_ok=True)
    (folder / f"{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(seconds)
    return number * number
