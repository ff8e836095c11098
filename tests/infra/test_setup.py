"""Set-up where a GPU is: what it installs, with commands that only record how they are called."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from infra.triton.image import TENSORRT

ROOT = Path(__file__).resolve().parents[2]
RECORD = '#!/bin/sh\necho "$(basename "$0") $*" >> "$CALLS"\n'


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment of recording commands, and a driver that answers."""
    (tmp_path / "driver").mkdir()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    for name in ("venv/bin/python", "venv/bin/uv", "driver/nvidia-smi"):
        (tmp_path / name).write_text(RECORD)
        (tmp_path / name).chmod(0o755)
    return tmp_path / "venv"


def set_up(venv: Path, *, gpu: bool) -> tuple[list[str], str]:
    """The calls of uv, and what was printed."""
    calls, driver = venv.parent / "calls", venv.parent / "driver"
    path = f"{driver}:{os.environ['PATH']}" if gpu else os.environ["PATH"]
    planted = {"VENV": str(venv), "CALLS": str(calls), "PATH": path}
    done = subprocess.run(
        [str(ROOT / "infra" / "setup.sh")],
        env=os.environ | planted, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = calls.read_text().splitlines()
    return [line for line in found if line.startswith("uv pip install")], done.stdout


def test_the_extra_is_the_tensorrt_of_the_pinned_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["gpu"] == [f"tensorrt=={TENSORRT}"]


def test_with_a_gpu_the_images_tensorrt_is_installed(venv: Path) -> None:
    installs, printed = set_up(venv, gpu=True)
    assert sum(f"tensorrt=={TENSORRT}" in call for call in installs) == 1
    assert "with CUDA torch" in printed
    assert "not installed" not in printed


def test_a_tensorrt_that_cannot_be_installed_is_reported_and_does_not_stop_set_up(
    venv: Path,
) -> None:
    refuses = '\ncase "$*" in *tensorrt==*) exit 1;; esac\n'
    (venv / "bin" / "uv").write_text(RECORD + refuses)
    _, printed = set_up(venv, gpu=True)
    assert f"tensorrt=={TENSORRT} is not installed" in printed
    assert "done:" in printed
    assert (venv / ".ready").exists()


def test_without_a_gpu_it_is_not_installed(venv: Path) -> None:
    installs, printed = set_up(venv, gpu=False)
    assert not any("tensorrt" in call for call in installs)
    assert "with CPU torch" in printed
