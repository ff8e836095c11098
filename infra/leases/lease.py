"""A lock that every host sees: a lease of a global concurrency limit of one slot.

The holder renews its lease while it runs. The server frees a lease that was not renewed for
`LEASE_S` (its service `repossessor` looks every 15 s). A Prefect variable with the limit's name
says who holds it. Prefect's own `concurrency` ends its block after three failed renewals within a
few seconds, so a short cut of the network would end it; here the block goes on for as long as the
server cannot have freed the lease. Source: prefect/concurrency/_leases.py, 3.8.
"""

import datetime as dt
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.process import ProcessId
from model_code.artifacts import hash_bytes
from model_code.errors import TicklineError
from model_code.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

LEASE_S = 60.0  # the shortest that Prefect grants
RENEW_S = 10.0
RETRY_S = 1.0
TIMEOUT_S = 5.0  # of one request, so that a cut link is tried again soon
ORPHAN_S = 120.0  # after its end a lease that the server has not freed was lost by a restart of it
LOCKED, GONE = 423, 410


class LeaseBusyError(TicklineError):
    """Another process holds the lease."""


class LeaseLostError(TicklineError):
    """This process does not hold its lease any more: it must not write."""


class LeaseHolder(BaseModel):
    """Who holds a lease, or held it when its process died.

    Attributes:
        process: that holds it.
        run: name of its flow run; empty until it exists.
        flow_run_id: of its flow run; empty until it exists.
        lease_id: of the lease.
        limit_id: of the limit; a limit that is created again has another.
        until: end of the lease if it is not renewed, in seconds since the epoch.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    process: ProcessId
    run: str = ""
    flow_run_id: str = ""
    lease_id: str
    limit_id: str
    until: float

    def __str__(self) -> str:
        run = f", run {self.run}" if self.run else ""
        return f"pid {self.process.pid} on {self.process.host}{run}"

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone: known of this machine, of others by the lease's end."""
        return (self.process.here and not self.process.lives) or time.time() > self.until


class _Lease:
    """A lease of this process."""

    def __init__(self, name: str, holder: LeaseHolder, before: LeaseHolder | None) -> None:
        self.name, self.holder, self.before = name, holder, before
        self.until_s = 0.0  # of `_clock`
        self.lost = ""
        self.stop = threading.Event()

    def require(self) -> None:
        if self.lost or _clock() > self.until_s:
            why = self.lost or f"the Prefect server has not renewed it for {LEASE_S:.0f} s"
            raise LeaseLostError(
                f"this process has lost its lease, and another host may go on: {why}",
                where=f"concurrency limit {self.name}",
                remedy="nothing was written since. Check the network to the Prefect server, then "
                "run the same command, or tickline rerun, on one host",
            )


_held: dict[str, _Lease] = {}


def lease_name(settings: Settings, what: str) -> str:
    """The limit's name for what hosts with this store must not do at once."""
    return f"tickline-{what}-{hash_bytes(str(settings.store).encode())[:8]}"


@contextmanager
def hold_lease(
    settings: Settings, what: str, *, run: str = "", flow_run_id: str = "", wait_s: float = 0.0
) -> Iterator[None]:
    """Hold a lease for the block; within it the same process may do so again.

    Without a shared store nothing is held: the locks of the home are enough.

    Args:
        settings: name the store.
        what: must not be done by two hosts at once: "night", "promotion-7".
        run: name of the flow run.
        flow_run_id: of the flow run.
        wait_s: how long to wait for another holder.

    Raises:
        LeaseBusyError: another process holds it; the message names it.
        httpx.HTTPError: the Prefect server does not answer.
    """
    name = lease_name(settings, what)
    if settings.store is None:
        yield
        return
    if name in _held:
        found = _held[name]
        found.holder = found.holder.model_copy(update={"run": run, "flow_run_id": flow_run_id})
        yield
        return
    with _client() as client:
        lease = _acquired(client, name, run, flow_run_id, wait_s)
    renewing = threading.Thread(
        target=copy_context().run, args=(_keep, lease), name=f"renew {name}", daemon=True
    )
    _held[name] = lease
    renewing.start()
    try:
        yield
    finally:
        del _held[name]
        lease.stop.set()
        renewing.join()
        with suppress(httpx.HTTPError), _client() as client:  # else it ends by itself
            if not lease.lost:
                _release(client, name, lease.holder)


def require_held() -> None:
    """Check that this process still holds its leases; call it before a write.

    It asks no server. A process that holds none, in a home alone, passes.

    Raises:
        LeaseLostError: the server may have given one to another process.
    """
    for lease in tuple(_held.values()):
        lease.require()


def holder_of(settings: Settings, what: str) -> LeaseHolder | None:
    """Who holds a lease, or who held it last if its process died.

    While this process holds it: who held it before and died.
    """
    name = lease_name(settings, what)
    if name in _held:
        return _held[name].before
    with _client() as client:
        return _read(client, name)


def require_free(settings: Settings, what: str) -> None:
    """Check that no process holds a lease.

    Raises:
        LeaseBusyError: one does; the message names it.
    """
    if settings.store is None:
        return
    name = lease_name(settings, what)
    with _client() as client:
        limit = _limit(client, name)
        holder = _read(client, name)
        if limit["active_slots"] and not _freed(client, name, limit["id"]):
            raise _busy(name, holder)


def _clock() -> float:
    """Seconds that go on while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _client() -> "SyncPrefectClient":
    from prefect import get_client

    return get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT_S})


def _acquired(
    client: "SyncPrefectClient", name: str, run: str, flow_run_id: str, wait_s: float
) -> _Lease:
    last = time.monotonic() + wait_s
    while True:
        limit, before = _limit(client, name), _read(client, name)
        began, until = _clock(), time.time() + LEASE_S
        try:
            answer = client.increment_concurrency_slots_with_lease(
                names=[name], slots=1, mode="concurrency", lease_duration=LEASE_S
            ).json()
        except httpx.HTTPStatusError as error:
            if error.response.status_code != LOCKED:
                raise
            if _freed(client, name, limit["id"]):
                continue
            if time.monotonic() > last:
                raise _busy(name, before) from error
            time.sleep(RETRY_S)
            continue
        if not answer["limits"]:  # another process has just deleted an orphan's limit
            continue
        holder = LeaseHolder(
            process=ProcessId.own(),
            run=run,
            flow_run_id=flow_run_id,
            lease_id=answer["lease_id"],
            limit_id=answer["limits"][0]["id"],
            until=until,
        )
        _write(client, name, holder)
        if _limit(client, name)["id"] != holder.limit_id:  # another process took it for an orphan's
            continue
        lease = _Lease(name, holder, before)
        lease.until_s = began + LEASE_S
        return lease


def _freed(client: "SyncPrefectClient", name: str, limit_id: str) -> bool:
    """Delete a limit whose holder is known to be gone; it is then created again.

    That is a process of this machine that does not run, or one whose lease has ended long ago: a
    server that was restarted may have forgotten the lease but not the slot. Of several processes
    that delete a limit by its id one succeeds.
    """
    from prefect.exceptions import ObjectNotFound

    holder = _read(client, name)
    if holder is None or holder.limit_id != limit_id:
        return False
    killed = holder.process.here and not holder.process.lives
    if not (killed or time.time() > holder.until + ORPHAN_S):
        return False
    with suppress(ObjectNotFound):
        client.delete_global_concurrency_limit_by_name(limit_id)  # it takes an id too
    return True


def _busy(name: str, holder: LeaseHolder | None) -> LeaseBusyError:
    if holder is None:
        return LeaseBusyError(
            "lease held by a process that has not said who it is",
            where=f"concurrency limit {name}",
            remedy="run the same command again in a minute",
        )
    until = dt.datetime.fromtimestamp(holder.until, dt.UTC)
    return LeaseBusyError(
        f"lease held by {holder}",
        where=f"concurrency limit {name}",
        remedy=f"wait for it. If that host or process is gone: its lease ends at {until:%H:%M:%S} "
        "UTC, and the server frees it within 15 s",
    )


def _keep(lease: _Lease) -> None:
    """Renew a lease until it is released or lost."""
    pause = RENEW_S
    while not lease.stop.wait(pause):
        try:
            with _client() as client:
                pause = RENEW_S if _renewed(client, lease) else RETRY_S
        except httpx.HTTPError:  # the link is cut or the server is away
            pause = RETRY_S
        if lease.lost:
            return


def _renewed(client: "SyncPrefectClient", lease: _Lease) -> bool:
    began, until = _clock(), time.time() + LEASE_S
    try:
        client.renew_concurrency_lease(UUID(lease.holder.lease_id), LEASE_S)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != GONE:
            raise
        lease.lost = "the Prefect server has ended it"
        return False
    found = _read(client, lease.name)
    if found is not None and found.lease_id != lease.holder.lease_id:
        lease.lost = f"{found} holds it now"
        return False
    lease.holder = lease.holder.model_copy(update={"until": until})
    _write(client, lease.name, lease.holder)
    lease.until_s = began + LEASE_S
    return True


def _release(client: "SyncPrefectClient", name: str, holder: LeaseHolder) -> None:
    from prefect.exceptions import ObjectNotFound

    found = _read(client, name)
    if found is not None and found.lease_id == holder.lease_id:
        with suppress(ObjectNotFound):
            client.delete_variable_by_name(name)
    client.release_concurrency_slots_with_lease(UUID(holder.lease_id))


def _limit(client: "SyncPrefectClient", name: str) -> dict[str, Any]:
    """The limit with its id and active slots; it is created if there is none."""
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    while True:
        with suppress(ObjectNotFound):
            return client.read_global_concurrency_limit_by_name(name).model_dump(mode="json")
        with suppress(ObjectAlreadyExists):
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))


def _read(client: "SyncPrefectClient", name: str) -> LeaseHolder | None:
    found = client.read_variable_by_name(name)
    try:
        return None if found is None else LeaseHolder.model_validate_json(str(found.value))
    except ValidationError:  # of another Tickline
        return None


def _write(client: "SyncPrefectClient", name: str, holder: LeaseHolder) -> None:
    from prefect.client.schemas.actions import VariableCreate, VariableUpdate

    value = holder.model_dump_json()
    if client.read_variable_by_name(name) is None:
        client.create_variable(VariableCreate(name=name, value=value))
    else:
        client.update_variable(VariableUpdate(name=name, value=value))
