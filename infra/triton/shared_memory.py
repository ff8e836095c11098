"""Shared memory of the Python backend in `/dev/shm`: a killed server leaves its segments behind."""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/dev/shm")  # noqa: S108  where the Python backend passes tensors
PREFIX = "tickline_triton_"
REGION = PREFIX + "{port}_"
YOUNG_S = 30.0  # a server that starts creates a segment before it maps it


def sweep(grpc_port: int) -> None:
    """Remove the segments of a server on this port; call only after it has exited."""
    for path in FOLDER.glob(f"*{REGION.format(port=grpc_port)}*"):
        _remove(path)


def sweep_stale(folder: Path = FOLDER) -> list[str]:
    """Remove our segments that no process has mapped or open; return their names.

    Segments of other accounts are left alone: their processes cannot be seen. So are segments of
    the last 30 s. Do not share `/dev/shm` between containers: a process of another container
    cannot be seen either.
    """
    old = time.time() - YOUNG_S
    found = [path for path in folder.glob(f"*{PREFIX}*") if _changed(path) < old]
    found = [path for path in found if path.owner() == Path("/proc/self").owner()]
    if not found:
        return []
    used = set(_used(str(folder)))
    stale = [path for path in found if str(path) not in used]
    for path in stale:
        _remove(path)
    return [path.name for path in stale]


def _used(folder: str) -> Iterator[str]:
    """Files below the folder that a process of this account has mapped or open."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for line in (process / "maps").read_text().splitlines():
                name = line.partition(folder)[2]
                if name:
                    yield folder + name.removesuffix(" (deleted)")
        with suppress(OSError):
            for link in (process / "fd").iterdir():
                with suppress(OSError):
                    target = str(link.readlink())
                    if target.startswith(folder):
                        yield target


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
