"""The lock of nights: one flow runs at a time in a home, and among the hosts that share a store."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.leases.lease import LeaseBusyError, hold_lease, holder_of, require_free
from infra.process import ProcessId
from model_code.artifacts import atomic_file
from model_code.errors import TicklineError
from model_code.settings import Settings

NIGHT = "night"  # name of the lease
REMEDY = "wait for it, or use another home folder: TICKLINE_HOME=..."


class BusyError(TicklineError):
    """Another flow is running in this home folder, or on a host with the same store."""


class LockOwner(BaseModel):
    """The process and the flow run that hold the lock, or held it when the process died.

    Attributes:
        process: that holds it.
        flow_run_id: of its flow run.
        until: end of its lease in seconds since the epoch; None: it holds the home's lock alone.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    process: ProcessId
    flow_run_id: str
    until: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone: known of this machine, of others by the lease's end."""
        if self.process.here:
            return not self.process.lives
        return self.until is not None and time.time() > self.until


def read_owner(settings: Settings) -> LockOwner | None:
    """Read the recorded owner. After a kill the record remains, the lock is free."""
    if settings.store is not None:
        found = holder_of(settings, NIGHT)
        if found is not None:
            return LockOwner(
                process=found.process, flow_run_id=found.flow_run_id, until=found.until
            )
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

    With a shared store also hold the lease of its hosts: `infra.leases.lease.require_held` tells
    whether it is still held.

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
            remedy=REMEDY,
        ) from error
    try:
        with ExitStack() as stack:
            run, run_id = str(flow_run.name or ""), str(flow_run.id or "")
            try:
                stack.enter_context(hold_lease(settings, NIGHT, run=run, flow_run_id=run_id))
            except LeaseBusyError as error:
                raise BusyError(
                    f"another nightly is running ({error.what})",
                    where=error.where,
                    remedy=error.remedy,
                ) from error
            yield
    finally:
        _path(settings).unlink(missing_ok=True)
        mine.release()


def require_idle(settings: Settings) -> None:
    """Check that nobody holds the lock.

    Raises:
        BusyError: a process holds it.
    """
    try:
        with run_lock(settings):
            require_free(settings, NIGHT)
    except Timeout as error:
        raise BusyError(
            "a nightly is already running", where=str(settings.home), remedy=REMEDY
        ) from error
    except LeaseBusyError as error:
        raise BusyError(
            f"a nightly is already running ({error.what})", where=error.where, remedy=error.remedy
        ) from error


def record_owner(settings: Settings) -> None:
    """Record this process and its flow run as the lock's owner."""
    owner = LockOwner(process=ProcessId.own(), flow_run_id=str(flow_run.id))
    with atomic_file(_path(settings)) as temporary:
        temporary.write_text(owner.model_dump_json())


def _path(settings: Settings) -> Path:
    return settings.home / "nightly.holder"
