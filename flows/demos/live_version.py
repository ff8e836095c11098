"""A version for the live rig: the serving one of the caller's home folder, else a quick one."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.demos.live_rig import adopt, private
from infra.servers import QUIET
from model_code.errors import TicklineError
from model_code.settings import Settings

if TYPE_CHECKING:
    from model_code.repository.manifest import Manifest

QUICK = (
    "network.KIND=conv-transformer", "network.d_model=16", "network.heads=2", "network.layers=1",
    "network.feed_forward=32", "training.epochs=1", "split.train_windows=2048",
    "split.validation_windows=512", "split.test_windows=1024", "benchmark.requests=400",
    "benchmark.rounds=3", "benchmark.served=false",
)  # fmt: skip

# a toy network is worse than gradient boosting, so that the shipped goals would not stage it
GOALS = """
minimum_events: 1
goals:
  - {name: every answer is finite, metric: non_finite, kind: threshold, maximum: 0}
"""


def provide(
    settings: Settings,
    source: Settings,
    store: str,
    say: Callable[[str], None],
    versions: Sequence[int] = (),
) -> "tuple[list[int], Manifest]":
    """Let a version serve in the rig's home folder.

    Args:
        settings: the rig's.
        source: of the caller.
        store: URI of the ticks, for a quick nightly if the caller has no version.
        say: called with a line about what is used.
        versions: of the caller's; none: the serving one, else the newest staged.

    Returns:
        The versions and the manifest of the first.

    Raises:
        TicklineError: the quick nightly staged nothing.
    """
    from flows.runs.replay_model import find_version

    found = adopt(settings, source, versions)
    if found:
        say(f"version {found[0]} of {source.home}")
    else:
        say(
            "no version in this home: a nightly with a toy network makes one, about a minute; "
            "its goal is finite answers, no more"
        )
        toy = private(settings.home / "toy")
        nightly(toy.home, store)
        found = adopt(settings, toy)
        if not found:
            raise TicklineError(
                "the quick nightly staged nothing", remedy="give a home with a version"
            )
    _, manifest = find_version(settings, found[0], None)
    return found, manifest


def nightly(home: Path, store: str) -> None:
    """Run a quick nightly in a home folder.

    Raises:
        TicklineError: it failed.
    """
    home.mkdir(parents=True, exist_ok=True)
    goals = home / "goals.yaml"
    goals.write_text(GOALS)
    changes = [word for change in QUICK for word in ("--set", change)]
    command = [sys.executable, "-m", "flows.cli", "nightly", "--data", store]
    command += ["--goals", str(goals), *changes]
    left_out = {"TICKLINE_PREFECT_API_URL", "TICKLINE_MLFLOW_TRACKING_URI", "TICKLINE_TRITON_URL"}
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        command,
        env=variables | QUIET | {"TICKLINE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-10:])
        raise TicklineError(
            f"the quick nightly failed:\n{tail}", remedy="give a home with a version"
        )
