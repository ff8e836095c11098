"""Leases on a real Prefect server, held by processes of their own."""

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from infra.leases import lease
from infra.leases.lease import (
    LEASE_S,
    LeaseBusyError,
    LeaseHolder,
    LeaseLostError,
    hold_lease,
    holder_of,
    lease_name,
    require_free,
    require_held,
)
from infra.process import ProcessId
from infra.servers import HOST, free_port, prefect_command, started
from model_code.settings import Settings
from tests.support.leases import held_elsewhere
from tests.support.proxy import Proxy

HOLD = 'hold_lease(Settings(), "night", run="brave-fox", flow_run_id="7")'


@pytest.fixture
def two_hosts(
    tmp_path: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """A home whose store is new, so that its leases are of this test alone."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    with temporary_settings({PREFECT_API_URL: prefect_url}):
        yield Settings(home=tmp_path / "home", store=f"file://{tmp_path / 'store'}").resolved()


def another_process(
    settings: Settings,
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return held_elsewhere(settings, settings.home.with_name("other"), HOLD)


def record(settings: Settings, **changes: object) -> None:
    """Change what the server's variable says of the holder, as another host would have said it."""
    holder = holder_of(settings, "night")
    assert holder is not None
    with get_client(sync_client=True) as client:
        lease._write(client, lease_name(settings, "night"), holder.model_copy(update=changes))


def elsewhere(holder: LeaseHolder) -> ProcessId:
    return holder.process.model_copy(update={"host": "far-away"})


def test_a_second_process_is_refused_and_told_who_holds_it(two_hosts: Settings) -> None:
    with another_process(two_hosts) as first:
        holder = holder_of(two_hosts, "night")
        assert holder is not None
        assert (holder.process.pid, holder.run, holder.flow_run_id) == (first.pid, "brave-fox", "7")
        assert not holder.has_ended
        with pytest.raises(LeaseBusyError, match=f"pid {first.pid} on .*, run brave-fox") as busy:
            hold_lease(two_hosts, "night", wait_s=1.5).__enter__()
        assert "its lease ends at" in busy.value.remedy
        with pytest.raises(LeaseBusyError, match=f"pid {first.pid}"):
            require_free(two_hosts, "night")
        with hold_lease(two_hosts, "promotion-7"):
            require_held()
    # it was killed: its process is known to be gone, because it was of this machine
    require_free(two_hosts, "night")
    with hold_lease(two_hosts, "night"):
        before = holder_of(two_hosts, "night")
        assert before is not None
        assert before.flow_run_id == "7", "whose run is to be closed"
        require_held()
    assert holder_of(two_hosts, "night") is None
    require_free(two_hosts, "night")


def test_the_lease_of_a_killed_process_of_another_host_ends(two_hosts: Settings) -> None:
    with another_process(two_hosts) as first:
        holder = holder_of(two_hosts, "night")
        assert holder is not None
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        record(two_hosts, process=elsewhere(holder))
        with pytest.raises(LeaseBusyError, match="on far-away"):
            hold_lease(two_hosts, "night").__enter__()
        began = time.monotonic()
        with hold_lease(two_hosts, "night", wait_s=2 * LEASE_S):
            require_held()
        assert time.monotonic() - began < LEASE_S + 40


def test_a_slot_that_a_restarted_server_forgot_to_free_is_freed(two_hosts: Settings) -> None:
    with another_process(two_hosts) as first:
        holder = holder_of(two_hosts, "night")
        assert holder is not None
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        record(two_hosts, process=elsewhere(holder), until=time.time() - lease.ORPHAN_S - 1)
        old = lease._limit
        with hold_lease(two_hosts, "night"), get_client(sync_client=True) as client:
            limit = old(client, lease_name(two_hosts, "night"))
            assert limit["id"] != holder.limit_id
            assert limit["active_slots"] == 1


def test_a_lease_that_the_server_has_ended_stops_its_holder(
    two_hosts: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    with hold_lease(two_hosts, "night"), get_client(sync_client=True) as client:
        require_held()
        held = lease._held[lease_name(two_hosts, "night")]
        client.release_concurrency_slots_with_lease(UUID(held.holder.lease_id))
        with pytest.raises(LeaseLostError, match="the Prefect server has ended it"):
            until_lost()
        with another_process(two_hosts):
            pass  # so another one holds it
        with pytest.raises(LeaseLostError):
            require_held()
    require_held()


def test_a_lease_of_another_holder_stops_this_one(
    two_hosts: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    with hold_lease(two_hosts, "night"):
        held = lease._held[lease_name(two_hosts, "night")]
        other = held.holder.model_copy(
            update={"lease_id": str(uuid4()), "process": elsewhere(held.holder)}
        )
        with get_client(sync_client=True) as client:
            lease._write(client, held.name, other)
        with pytest.raises(LeaseLostError, match="on far-away"):
            until_lost()


def until_lost() -> None:
    for _ in range(300):
        require_held()
        time.sleep(0.1)


class Link:
    """A TCP connection to a server that a test cuts and joins."""

    def __init__(self, proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        self._proxy, self._loop = proxy, loop
        self.url = f"http://{proxy.url}/api"

    def cut(self) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.cut(), self._loop).result(10)

    def join(self) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.listen(), self._loop).result(10)


@contextmanager
def link_to(url: str) -> Iterator[Link]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    link = Link(Proxy(url.removeprefix("http://").removesuffix("/api")), loop)
    link.join()
    try:
        yield link
    finally:
        link.cut()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_a_cut_link_stops_the_holder_once_its_lease_is_over_and_not_before(
    two_hosts: Settings, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.5)
    monkeypatch.setattr(lease, "RETRY_S", 0.2)
    monkeypatch.setattr(lease, "TIMEOUT_S", 1.0)
    seconds = [0.0]
    clock = lease._clock
    monkeypatch.setattr(lease, "_clock", lambda: clock() + seconds[0])
    with (
        link_to(prefect_url) as link,
        temporary_settings({PREFECT_API_URL: link.url}),
        hold_lease(two_hosts, "night"),
    ):
        held = lease._held[lease_name(two_hosts, "night")]
        first = held.until_s
        link.cut()
        time.sleep(10)
        require_held()
        link.join()
        wait_for(lambda: held.until_s > first + 9)
        require_held()
        link.cut()
        time.sleep(1.5)
        seconds[0] = LEASE_S + 1  # the clock of a minute later
        with pytest.raises(LeaseLostError, match="has not renewed it for 60 s"):
            require_held()
        link.join()
        # nobody took it: the server renews it
        wait_for(lambda: held.until_s > clock() + seconds[0])
        require_held()


def test_a_server_that_restarts_keeps_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.5)
    monkeypatch.setattr(lease, "RETRY_S", 0.2)
    settings = Settings(home=tmp_path, store=f"file://{tmp_path / 'store'}").resolved()
    port = free_port()
    url = f"http://{HOST}:{port}/api"

    def server() -> AbstractContextManager[int]:
        return started("prefect-server", prefect_command(port), f"{url}/health", settings)

    with temporary_settings({PREFECT_API_URL: url}), ExitStack() as block:
        with server():
            block.enter_context(hold_lease(settings, "night"))
            held = lease._held[lease_name(settings, "night")]
        stopped = lease._clock()
        with server():
            wait_for(lambda: held.until_s > stopped + LEASE_S)
            require_held()
            block.close()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within 30 s")


def test_within_the_block_it_may_be_held_again(two_hosts: Settings) -> None:
    with hold_lease(two_hosts, "promotion-7"):
        with hold_lease(two_hosts, "promotion-7", run="brave-fox", flow_run_id="8"):
            require_held()
        held = lease._held[lease_name(two_hosts, "promotion-7")]
        assert held.holder.run == "brave-fox"


def test_a_home_alone_asks_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    alone = Settings(home=tmp_path).resolved()
    with hold_lease(alone, "night"):
        require_held()
        assert lease._held == {}
    require_free(alone, "night")
