"""Segments that a killed server left in `/dev/shm` are removed, those in use never."""

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.triton import shared_memory
from infra.triton.shared_memory import PREFIX, REGION, YOUNG_S, sweep, sweep_stale


def segment(name: str, *, age_s: float = 2 * YOUNG_S) -> Path:
    path = shared_memory.FOLDER / name
    path.write_bytes(bytes(4096))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


@pytest.fixture
def name() -> Iterator[str]:
    """A name that no server's region begins with; what is left of it is removed."""
    name = f"{PREFIX}test_{os.getpid()}_"
    yield name
    for path in shared_memory.FOLDER.glob(f"{name}*"):
        path.unlink()


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Map it and close the descriptor, as the backend does."""
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 4096)
    yield
    memory.close()


def test_only_old_segments_of_nobody_are_removed(name: str) -> None:
    dead, young = segment(f"{name}dead"), segment(f"{name}young", age_s=0.0)
    used, opened = segment(f"{name}mapped"), segment(f"{name}open")
    foreign = shared_memory.FOLDER / f"other_{name.removeprefix(PREFIX)}"
    foreign.write_bytes(b"x")
    try:
        with mapped(used), opened.open("rb"):
            assert dead.name in sweep_stale()
            assert [path.exists() for path in (dead, young, used, opened, foreign)] == [
                False, True, True, True, True,
            ]  # fmt: skip
        gone = sweep_stale()
    finally:
        foreign.unlink()
    assert {used.name, opened.name} <= set(gone)
    assert young.exists()


def test_a_servers_own_segments_go_with_it() -> None:
    port = 60_000 + os.getpid() % 5000
    own = segment(f"{REGION.format(port=port)}one", age_s=0.0)
    other = segment(f"{REGION.format(port=f'9{port}')}one", age_s=0.0)
    try:
        sweep(port)
        assert not own.exists()
        assert other.exists()
    finally:
        other.unlink()
