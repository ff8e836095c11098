"""Who holds a home folder's lock: one flow at a time works there."""

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
    """Another flow of this home folder is at work."""


class LockOwner(BaseModel):
    """The process and the flow run that hold the lock, or held it when they died."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    process: ProcessId
    flow_run_id: str


def read_owner(settings: Settings) -> LockOwner | None:
    """Who wrote itself down as holder; the system frees a dead one's lock, not its name."""
    try:
        return LockOwner.model_validate_json(_path(settings).read_bytes())
    except (OSError, ValidationError):
        return None


def run_lock(settings: Settings) -> FileLock:
    """The home folder's lock, not waited for."""
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
        holder = read_owner(settings)
        who = f"process {holder.process.pid}" if holder else "unknown process"
        raise BusyError(
            f"another nightly is at work ({who})",
            where=str(settings.home),
            remedy="wait for it, or give this one a home of its own: TICKLINE_HOME=...",
        ) from error
    try:
        yield
    finally:
        _path(settings).unlink(missing_ok=True)
        mine.release()


def record_owner(settings: Settings) -> None:
    """Write this process and its flow run down as holder."""
    holder = LockOwner(process=ProcessId.own(), flow_run_id=str(flow_run.id))
    with atomic_file(_path(settings)) as temporary:
        temporary.write_text(holder.model_dump_json())


def _path(settings: Settings) -> Path:
    return settings.home / "nightly.holder"
