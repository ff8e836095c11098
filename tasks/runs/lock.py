"""The home folder's lock: one flow runs at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.process import ProcessId
from model_code.artifacts import atomic_file
from model_code.errors import TicklineError
from model_code.settings import Settings


class BusyError(TicklineError):
    """Another flow is running in this home folder."""


class LockOwner(BaseModel):
    """The process and the flow run that hold the lock, or held it when the process died."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    process: ProcessId
    flow_run_id: str


def read_owner(settings: Settings) -> LockOwner | None:
    """Read the recorded owner. After a kill the record remains, the lock is free."""
    try:
        return LockOwner.model_validate_json(_path(settings).read_bytes())
    except (OSError, ValidationError):
        return None


def run_lock(settings: Settings) -> FileLock:
    """Return the home folder's lock. Acquiring it does not wait."""
    settings.home.mkdir(parents=True, exist_ok=True)
    return FileLock(settings.home / "nightly.lock", timeout=0)


@contextmanager
def hold_lock(settings: Settings) -> Iterator[None]:
    """Hold the lock; the system frees it however the process dies.

    Raises:
        BusyError: another process holds it.
    """
    mine = run_lock(settings)
    try:
        mine.acquire()
    except Timeout as error:
        owner = read_owner(settings)
        pid = owner.process.pid if owner else "unknown"
        raise BusyError(
            f"another nightly is running (pid {pid})",
            where=str(settings.home),
            remedy="wait for it, or use another home folder: TICKLINE_HOME=...",
        ) from error
    try:
        yield
    finally:
        _path(settings).unlink(missing_ok=True)
        mine.release()


def record_owner(settings: Settings) -> None:
    """Record this process and its flow run as the lock's owner."""
    owner = LockOwner(process=ProcessId.own(), flow_run_id=str(flow_run.id))
    with atomic_file(_path(settings)) as temporary:
        temporary.write_text(owner.model_dump_json())


def _path(settings: Settings) -> Path:
    return settings.home / "nightly.holder"
