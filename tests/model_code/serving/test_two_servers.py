"""Two real servers, the second with a copy of the repository of its own: swaps and a stream."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from infra.triton.server import TritonServer
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.levels import compare, reconcile
from model_code.serving.routed import RoutedClient
from model_code.serving.servers import Server, Servers
from model_code.serving.swap import BRIDGE_NAMES, Swap
from model_code.settings import MODEL_NAME
from tests.support.proxy import Proxy
from tests.support.serving import APPROVAL, Names, logits, staged, windows


class Desk:
    """Targets east and west."""

    def __init__(self, east: TritonServer, west: TritonServer, folder: Path) -> None:
        self.place = ServingRepository(east.repository)
        self.copy = ServingRepository(west.repository)
        self.east, self.west = east.client(), west.client()
        both = [Server("east", self.east, self.place), Server("west", self.west, self.copy)]
        self.servers, self.names, self._staging = Servers(both, 2), Names(), folder

    def publish(self, version: int, **how: Any) -> None:
        self.place.publish(staged(self._staging, version, **how), APPROVAL)

    def promote(self, version: int, previous: int | None) -> None:
        Swap(self.place, self.servers, self.names).run("promote", version, previous, "f")
        assert self.servers.behind == {}

    def serves(self, version: int) -> None:
        """Assert that routes, aliases and both servers agree on the version."""
        route = Route(champion=Target(model=MODEL_NAME, version=version))
        assert self.place.route() == self.copy.route() == route
        assert self.names.champion == version
        for client in (self.east, self.west):
            found = client.predict(windows(), version=version)
            np.testing.assert_allclose(found, logits(version), atol=1e-4)
            assert not any(map(client.ready, BRIDGE_NAMES))


@pytest.fixture
def desk(live_triton: TritonServer, second_triton: TritonServer, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(live_triton, second_triton, tmp_path / "staging")
    for version in (1, 2):
        desk.publish(version)
    desk.promote(1, None)
    yield desk
    desk.east.close()
    desk.west.close()


def test_a_swap_changes_both_also_by_a_bridge_and_reconcile_loads_a_restarted_one(
    desk: Desk,
) -> None:
    desk.serves(1)
    desk.promote(2, 1)
    desk.serves(2)
    assert desk.west.versions() == desk.east.versions() == [1, 2]
    desk.west.unload()  # as after a restart
    _, west = reconcile(desk.place, desk.servers)
    assert (west.level, west.has, west.action) == (True, (), "loaded 1, 2")
    desk.serves(2)
    desk.publish(3, name="openvino-fp32")  # another configuration: by a bridge
    desk.promote(3, 2)
    desk.serves(3)
    assert desk.west.versions() == desk.east.versions() == [3]


def test_reconcile_loads_the_version_before_again_whose_process_died(
    desk: Desk, live_triton: TritonServer
) -> None:
    desk.promote(2, 1)
    (stub,) = (
        one
        for one in psutil.Process(live_triton.pid).children(recursive=True)
        if one.status() != psutil.STATUS_ZOMBIE  # of a test before
        and any(f"{MODEL_NAME}/1/" in word for word in one.cmdline())
    )
    stub.kill()
    east, west = compare(desk.place, desk.servers)
    assert (east.level, east.answers, west.level) == (False, True, True)
    assert "is not healthy" in east.problem
    east, west = reconcile(desk.place, desk.servers)
    assert (east.action, east.problem, west.action) == ("loaded 1 again", "", "")
    desk.serves(2)
    found = desk.east.predict(windows(), version=1)
    np.testing.assert_allclose(found, logits(1), atol=1e-4)


def test_a_stream_survives_a_lost_target_and_a_swap_without_a_lost_request(desk: Desk) -> None:
    """The first target is lost, a version is swapped in meanwhile, and the target comes back."""
    one, seen, stop = windows(1), Counter[int](), asyncio.Event()

    async def ask(client: RoutedClient) -> None:
        while not stop.is_set():
            answer = await client.ask(one)
            correct = logits(answer.target.version)[:1]
            np.testing.assert_allclose(answer.logits_BC, correct, atol=1e-4)
            seen[answer.target.version] += 1
            await asyncio.sleep(0.001)

    async def counted(more: int) -> None:
        until = seen.total() + more
        while seen.total() < until:
            await asyncio.sleep(0.005)

    async def stream() -> int:
        async with (
            Proxy(desk.east.url) as proxy,
            RoutedClient((proxy.url, desk.west.url), desk.place.route_file) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(4):
                group.create_task(ask(client))
            await counted(50)
            assert client.failovers == 0
            await proxy.cut()
            await counted(50)
            assert client.failovers >= 1
            await asyncio.to_thread(desk.promote, 2, 1)
            await counted(50)
            before = proxy.connections
            await proxy.listen()
            while proxy.connections == before:  # the probe finds it
                await asyncio.sleep(0.02)
            await counted(50)
            stop.set()
        return client.failovers

    failovers = asyncio.run(stream())
    assert set(seen) == {1, 2}
    assert failovers < 50  # once it is known to be away, no request is sent there
