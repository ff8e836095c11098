"""Promotions to two real servers, the second with a copy of the repository of its own."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from infra.servers import HOST, free_port
from infra.triton.server import TritonServer
from model_code.errors import IntegrityError, PromotionError
from model_code.repository.copies import copy_version, mirror
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.candidate import CANDIDATE_NAME, load_under
from model_code.serving.client import TritonClient
from model_code.serving.levels import compare, reconcile
from model_code.serving.routed import RoutedClient
from model_code.serving.servers import QuorumError, Server, Servers
from model_code.serving.swap import BRIDGE_NAMES, Swap
from model_code.settings import MODEL_NAME
from tests.support.proxy import Proxy
from tests.support.serving import APPROVAL, Names, logits, staged, windows, write_graph


class Desk:
    """Two targets. The second is away while `away` is set: its address refuses connections."""

    def __init__(self, east: TritonServer, west: TritonServer, tmp_path: Any) -> None:
        self.place, self.copy = (
            ServingRepository(east.repository),
            ServingRepository(west.repository),
        )
        self.east, self.west = TritonClient(east.grpc_url), TritonClient(west.grpc_url)
        self.nobody = TritonClient(f"{HOST}:{free_port()}")
        self.names, self.away = Names(), False
        self._staging = tmp_path / "staging"

    def servers(self, quorum: int = 2) -> Servers:
        west = self.nobody if self.away else self.west
        both = [Server("east", self.east, self.place), Server("west", west, self.copy)]
        return Servers(both, quorum)

    def publish(self, version: int, **how: Any) -> None:
        self.place.publish(staged(self._staging, version, **how), APPROVAL)

    def promote(self, version: int, previous: int | None, quorum: int = 2) -> dict[str, str]:
        servers = self.servers(quorum)
        Swap(self.place, servers, self.names).run("promote", version, previous, "f")
        return servers.behind

    def serves(self, version: int, *clients: TritonClient) -> None:
        """Assert that route, aliases and the servers agree on the version."""
        assert self.names.champion == version
        assert self.place.route() == Route(champion=Target(model=MODEL_NAME, version=version))
        assert self.place.journal() is None
        for client in clients or (self.east, self.west):
            found = client.predict(windows(), version=version)
            np.testing.assert_allclose(found, logits(version), atol=1e-4)
            assert not any(map(client.ready, BRIDGE_NAMES))


@pytest.fixture
def desk(live_triton: TritonServer, second_triton: TritonServer, tmp_path: Any) -> Iterator[Desk]:
    desk = Desk(live_triton, second_triton, tmp_path)
    for version in (1, 2):
        desk.publish(version)
    assert desk.promote(1, None) == {}
    yield desk
    for client in (desk.east, desk.west, desk.nobody):
        client.close()


def test_a_swap_changes_both_targets_and_the_copy_with_its_route(desk: Desk) -> None:
    desk.serves(1)
    assert desk.promote(2, 1) == {}
    desk.serves(2)
    assert desk.copy.versions() == desk.place.versions() == (1, 2)
    assert desk.copy.route() == desk.place.route()
    assert desk.west.versions() == [1, 2]
    desk.publish(3, name="openvino-fp32")  # another configuration: by a bridge, on both
    assert desk.promote(3, 2) == {}
    desk.serves(3)
    assert desk.west.versions() == desk.east.versions() == [3]


def test_without_the_quorum_nothing_is_turned_and_what_was_loaded_is_unloaded(desk: Desk) -> None:
    desk.away = True
    with pytest.raises(QuorumError, match="1 of 2 targets are ready, the quorum is 2") as caught:
        desk.promote(2, 1)
    assert "west: " in caught.value.what
    assert "UNAVAILABLE" in caught.value.what
    desk.serves(1)
    assert desk.east.versions() == desk.west.versions() == [1]
    assert desk.copy.versions() == (1,)


def test_with_the_quorum_the_route_turns_and_reconcile_brings_the_laggard_level(
    desk: Desk,
) -> None:
    desk.away = True
    assert "UNAVAILABLE" in desk.promote(2, 1, quorum=1)["west"]
    desk.serves(2, desk.east)
    assert desk.west.versions() == [1]
    east, west = reconcile(desk.place, desk.servers())
    assert (east.level, east.action, west.level, west.has) == (True, "", False, None)
    desk.away = False
    desk.west.unload()  # it was restarted, with nothing loaded
    assert [one.level for one in compare(desk.place, desk.servers())] == [True, False]
    east, west = reconcile(desk.place, desk.servers())
    assert (west.level, west.has, west.wanted, west.action) == (True, (), (1, 2), "loaded 1, 2")
    desk.serves(2)
    assert all(one.level and not one.action for one in reconcile(desk.place, desk.servers()))
    assert all(one.level for one in compare(desk.place, desk.servers()))


def test_a_rollback_needs_one_target_only(desk: Desk) -> None:
    desk.promote(2, 1)
    desk.away = True
    servers = desk.servers()
    assert Swap(desk.place, servers, desk.names).run("rollback", 1, None, "f")
    assert set(servers.behind) == {"west"}
    desk.serves(1, desk.east)
    desk.away = False
    _, west = reconcile(desk.place, desk.servers())
    assert (west.has, west.wanted, west.action) == ((1, 2), (1,), "loaded 1")
    desk.serves(1)
    assert desk.west.versions() == [1]


def test_a_damaged_copy_is_refused_and_never_loaded(desk: Desk) -> None:
    desk.away = True
    desk.promote(2, 1, quorum=1)
    desk.away = False
    copy_version(desk.place, desk.copy, 2)
    write_graph(desk.copy.folder(2) / "model.onnx", windows(1)[0, :16, :2])
    _, west = reconcile(desk.place, desk.servers())
    assert not west.level
    assert "not the one" in west.problem
    assert desk.west.versions() == [1]
    with pytest.raises(IntegrityError, match="not the one"):
        mirror(desk.place, desk.copy, 2)
    desk.serves(2, desk.east)


def test_a_copy_that_arrives_damaged_is_refused_before_its_rename(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    real = shutil.copytree

    def damaging(source: Any, to: Any, **how: Any) -> Any:
        found = real(source, to, **how)
        graph = to / "model.onnx"
        graph.write_bytes(graph.read_bytes()[:-1] + b"?")
        return found

    monkeypatch.setattr("model_code.repository.copies.shutil.copytree", damaging)
    with pytest.raises(QuorumError, match=r"west: .*not the one"):
        desk.promote(2, 1)
    desk.serves(1)
    assert desk.copy.known() == (1,)


def test_reconcile_unloads_leftovers_and_refuses_an_interrupted_change(desk: Desk) -> None:
    load_under(desk.west, CANDIDATE_NAME, desk.place.folder(2))
    _, west = reconcile(desk.place, desk.servers())
    assert west.action == f"unloaded {CANDIDATE_NAME}"
    assert not desk.west.ready(CANDIDATE_NAME)
    desk.names.broken = True
    with pytest.raises(ConnectionError):
        desk.promote(2, 1)
    desk.names.broken = False
    if desk.place.journal() is not None:
        with pytest.raises(PromotionError, match="a promotion of version 2 was interrupted"):
            reconcile(desk.place, desk.servers())


def test_a_stream_survives_a_lost_target_and_a_swap_without_a_lost_request(desk: Desk) -> None:
    """The first target is away, comes back, and a new version is swapped in meanwhile."""
    one = windows(1)

    async def stream() -> tuple[Counter[int], int]:
        seen: Counter[int] = Counter()
        stop = asyncio.Event()
        async with Proxy(desk.east.url) as proxy:
            urls = (proxy.url, desk.west.url)
            async with RoutedClient(urls, desk.place.route_file) as client:

                async def ask() -> None:
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

                async with asyncio.TaskGroup() as group:
                    for _ in range(4):
                        group.create_task(ask())
                    await counted(50)
                    assert client.failovers == 0
                    await proxy.cut()
                    await counted(50)
                    assert client.failovers >= 1
                    assert await asyncio.to_thread(desk.promote, 2, 1) == {}
                    await counted(50)
                    before = proxy.connections
                    await proxy.listen()
                    while proxy.connections == before:  # the probe finds it
                        await asyncio.sleep(0.02)
                    await counted(50)
                    stop.set()
                return seen, client.failovers

    seen, failovers = asyncio.run(stream())
    assert set(seen) == {1, 2}
    assert failovers < 50  # once it is known to be away, nobody asks it
