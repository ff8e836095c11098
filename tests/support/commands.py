"""Commands in processes of their own that must end well."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def module(*words: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """Run `python -m WORDS`; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env={**(os.environ if env is None else env), "PWD": str(cwd)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def prefect(*words: str, env: Mapping[str, str] | None = None) -> str:
    """Run a Prefect command that asks nothing."""
    return module("prefect", "--no-prompt", *words, env=env)


def make_pool(env: Mapping[str, str] | None = None) -> None:
    """The process pool that prefect.yaml's deployments name."""
    prefect("work-pool", "create", "--overwrite", "--type", "process", "local", env=env)
