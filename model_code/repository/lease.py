"""The owner of a promotion: the process that runs it, from its opening to its record.

    <root>-state/owners/<version>.lock    held by the owner; the system frees it if it dies
    <root>-state/owners/<version>.json    who it is, for messages

Nobody owns a promotion that is suspended, waiting for its decision.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from model_code.artifacts import atomic_file
from model_code.errors import PromotionError

FOLDER = "owners"
WAIT_S = 1.0  # `owners` holds a lock for a moment


class PromotionRunningError(PromotionError):
    """Another process runs a promotion of this version."""


class Owner(BaseModel):
    """The process that runs a promotion.

    Attributes:
        version: to promote.
        name: of the flow run; empty until it exists.
        flow_run_id: of the flow run; empty until it exists.
        host: of the process.
        pid: of the process.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: int
    name: str = ""
    flow_run_id: str = ""
    host: str
    pid: int


@contextmanager
def owned(state: Path, version: int, name: str = "", flow_run_id: str = "") -> Iterator[None]:
    """Own the promotions of a version for the block; within it the same thread may do so again.

    Args:
        state: folder of the serving repository's state.
        version: to promote.
        name: of the flow run.
        flow_run_id: of the flow run.

    Raises:
        PromotionRunningError: another process owns them.
        StorageError: the folder cannot be written.
    """
    folder = state / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{version}.json"
    lock = FileLock(folder / f"{version}.lock", timeout=WAIT_S, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        owner = _read(file)
        run = f"the promotion of version {version}"
        if owner is not None and owner.name:
            run = f"{owner.name}, {run},"
        pid = "unknown" if owner is None else str(owner.pid)
        away = owner is not None and owner.host != socket.gethostname()
        raise PromotionRunningError(
            f"{run} is running (pid {pid}"
            f"{f' on {owner.host}' if owner is not None and away else ''})",
            where=str(folder),
            remedy="wait for it to end (tickline audit shows it), then run the same command",
        ) from error
    try:
        own = Owner(
            version=version,
            name=name,
            flow_run_id=flow_run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        with atomic_file(file) as path:
            path.write_text(own.model_dump_json() + "\n")
        yield
    finally:
        if lock.lock_counter == 1:
            file.unlink(missing_ok=True)
        lock.release()


def owners(state: Path) -> tuple[Owner, ...]:
    """The owners that are alive, of every promotion of a serving repository."""
    found = []
    for file in sorted((state / FOLDER).glob("*.json")):
        lock = FileLock(file.with_suffix(".lock"), timeout=0)
        try:
            with lock:
                continue  # nobody holds it: its process was killed
        except Timeout:
            owner = _read(file)
        if owner is not None:
            found.append(owner)
    return tuple(found)


def _read(file: Path) -> Owner | None:
    try:
        return Owner.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
