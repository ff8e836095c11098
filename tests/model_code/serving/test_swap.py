"""The swap against the real server: under load, with bad versions, killed anywhere."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from infra.triton.server import TritonServer, running
from model_code.errors import IntegrityError, ServingError, StorageError
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.swap import BRIDGE_NAMES, Swap
from model_code.settings import MODEL_NAME, Settings
from tests.support.serving import APPROVAL, Names, logits, staged, weights, windows, write_graph


class Desk:
    """One repository, one server, two aliases."""

    def __init__(self, server: TritonServer, tmp_path: Path) -> None:
        self.place = ServingRepository(server.repository)
        self.client = server.client()
        self.names = Names()
        self._staging = tmp_path / "staging"

    @property
    def swap(self) -> Swap:
        return Swap(self.place, self.client, self.names)

    def publish(self, version: int, **how: Any) -> None:
        self.place.publish(staged(self._staging, version, **how), APPROVAL)

    def serves(self, version: int) -> None:
        """Assert that aliases, route and server agree on the version."""
        assert self.names.champion == version
        assert self.place.route() == Route(champion=Target(model=MODEL_NAME, version=version))
        assert self.place.journal() is None
        assert not any(map(self.client.ready, BRIDGE_NAMES))
        found = self.client.predict(windows(), version=version)
        np.testing.assert_allclose(found, logits(version), atol=1e-4)


@pytest.fixture
def desk(live_triton: TritonServer, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(live_triton, tmp_path)
    for version in (1, 2):
        desk.publish(version)
    desk.swap.run("promote", 1, None, "f")
    yield desk
    desk.client.close()


def test_swaps_and_rollbacks_under_load_give_no_lost_or_wrong_response(tmp_path: Path) -> None:
    from tests.bench.swap_load import STORY, run

    seen, done = run(tmp_path, requests=2000, rounds=1)
    assert (seen.failed, seen.wrong) == (0, 0), seen.reasons
    assert len(done) >= len(STORY)
    assert seen.requests >= 2000
    assert {name.rsplit("/", maxsplit=1)[1] for name in seen.by} == {"1", "2", "3"}
    assert any(name.startswith(BRIDGE_NAMES[0]) for name in seen.by)  # during the change of backend


def test_swap_keeps_the_old_version_loaded_and_is_idempotent(desk: Desk) -> None:
    desk.serves(1)
    assert desk.swap.run("promote", 2, 1, "f")
    desk.serves(2)
    assert desk.names.previous == 1
    assert desk.client.versions() == [1, 2]
    assert not desk.swap.run("promote", 2, 1, "f")
    desk.serves(2)


def test_a_bad_version_left_by_a_rollback_never_outranks_the_champion(desk: Desk) -> None:
    desk.swap.run("promote", 2, 1, "f")
    desk.swap.run("rollback", 1, None, "f")
    assert desk.client.ask(windows(1)).version == 1  # also without a version in the request
    desk.publish(3)
    desk.swap.run("promote", 3, 1, "f")
    assert desk.client.versions() == [1, 3]  # `latest 2` alone would keep 2 and drop 1
    desk.serves(3)


def test_tampered_engine_is_refused_before_it_is_loaded(desk: Desk) -> None:
    graph = desk.place.folder(2) / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match="expected sha256"):
        desk.swap.run("promote", 2, 1, "f")
    assert desk.client.versions() == [1]
    desk.serves(1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"matrix": np.full((16, 2), np.nan, np.float32)}, "NaN"),
        ({"matrix": weights(3), "expected": weights(77)}, "answered wrongly"),
    ],
)
def test_a_version_that_returns_nan_or_wrong_logits_is_refused_and_undone(
    desk: Desk, bad: dict[str, Any], message: str
) -> None:
    desk.publish(3, **({"expected": weights(3)} | bad))
    with pytest.raises(ServingError, match=message):
        desk.swap.run("promote", 3, 1, "f")
    assert desk.client.versions() == [1]
    desk.serves(1)


def test_a_graph_that_does_not_load_is_refused_and_undone(desk: Desk) -> None:
    desk.publish(3, matrix=np.zeros((15, 2), np.float32), expected=weights(3))
    with pytest.raises(ServingError):
        desk.swap.run("promote", 3, 1, "f")
    desk.serves(1)


def test_first_version_that_fails_leaves_nothing_serving(
    live_triton: TritonServer, tmp_path: Path
) -> None:
    desk = Desk(live_triton, tmp_path)
    desk.publish(1, matrix=np.full((16, 2), np.nan, np.float32), expected=weights(1))
    with pytest.raises(ServingError):
        desk.swap.run("promote", 1, None, "f")
    assert desk.place.versions() == ()
    assert desk.place.route() == Route()
    assert desk.client.versions() == []
    assert desk.names.aliases() == (None, None)


def test_registry_that_fails_at_the_end_undoes_the_swap(desk: Desk) -> None:
    move = desk.names.move
    desk.names.move = lambda champion, previous: (  # type: ignore[method-assign]
        (_ for _ in ()).throw(ConnectionError("gone"))
        if champion == 2
        else move(champion, previous)
    )
    with pytest.raises(ConnectionError):
        desk.swap.run("promote", 2, 1, "f")
    desk.serves(1)
    assert desk.client.versions() == [1]


def test_an_alias_set_by_hand_is_neither_served_nor_kept(desk: Desk) -> None:
    desk.names.champion = 2  # in MLflow's page: nothing is loaded
    assert not desk.swap.run("promote", 1, None, "f")
    desk.serves(1)
    desk.names.champion = 2
    desk.client.unload(MODEL_NAME)
    desk.publish(3, matrix=np.full((16, 2), np.nan, np.float32), expected=weights(3))
    with pytest.raises(ServingError):
        desk.swap.run("promote", 3, 1, "f")
    desk.serves(1)  # what served before, not what the alias named


def test_an_unreachable_registry_in_a_rollback_leaves_the_old_version_serving(desk: Desk) -> None:
    desk.swap.run("promote", 2, 1, "f")
    aliases, asked = desk.names.aliases, 0

    def gone_after_the_first() -> tuple[int | None, int | None]:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise ConnectionError("the registry is gone")
        return aliases()

    desk.names.broken = True
    desk.names.aliases = gone_after_the_first  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        desk.swap.run("rollback", 1, None, "f")
    assert desk.place.route() == Route(champion=Target(model=MODEL_NAME, version=2))
    found = desk.client.predict(windows(), version=2)  # the route alone is not enough
    np.testing.assert_allclose(found, logits(2), atol=1e-4)
    desk.names.broken, desk.names.aliases = False, aliases  # type: ignore[method-assign]
    assert desk.swap.run("rollback", 1, None, "f")
    desk.serves(1)


def test_a_disk_error_while_undoing_does_not_hide_the_first_error(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("No space left on device")

    desk.publish(3, matrix=np.full((16, 2), np.nan, np.float32), expected=weights(3))
    real = desk.place.arrange
    calls = 0

    def arrange(versions: Any) -> None:
        nonlocal calls
        calls += 1
        real(versions) if calls == 1 else full()

    monkeypatch.setattr(desk.place, "arrange", arrange)
    monkeypatch.setattr(desk.swap.__class__, "_set_route", full)
    with pytest.raises(ServingError, match="NaN") as caught:
        desk.swap.run("promote", 3, 1, "f")
    assert "not verified again" in caught.value.__notes__[0]


def test_another_version_whose_bytes_were_changed_is_never_loaded(desk: Desk) -> None:
    """A load reads every version's folder again, including the champion's."""
    write_graph(desk.place.folder(1) / "model.onnx", weights(77))
    assert desk.swap.run("promote", 2, 1, "f")
    desk.serves(2)
    assert desk.client.versions() == [2]
    with pytest.raises(IntegrityError, match="not the one that was built"):
        desk.swap.run("rollback", 1, None, "f")
    desk.serves(2)


def test_a_champion_whose_bytes_were_changed_can_be_rolled_back_from(desk: Desk) -> None:
    desk.swap.run("promote", 2, 1, "f")
    write_graph(desk.place.folder(2) / "model.onnx", weights(77))
    assert desk.swap.run("rollback", 1, None, "f")
    desk.serves(1)
    assert desk.client.versions() == [1]


def test_the_share_of_a_killed_canary_is_withdrawn(desk: Desk) -> None:
    here = Target(model=MODEL_NAME, version=1)
    gone = Target(model="gone", version=2)
    Route(champion=here, candidate=gone, share=1.0).save(desk.place.route_file)
    assert desk.swap.run("rollback", 1, None, "f")
    desk.serves(1)


class Killed(BaseException):
    """Simulates a killed process: nothing after this point runs."""


def die_at(desk: Desk, point: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die before the swap's change number `point`."""
    count = 0

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **how: Any) -> Any:
            nonlocal count
            count += 1
            if count == point:
                raise Killed
            return real(*args, **how)

        monkeypatch.setattr(owner, name, wrapped)

    counted(desk.place, "arrange")
    counted(desk.client, "load")
    counted(desk.client, "load_bytes")
    counted(desk.client, "unload")
    counted(Route, "save")
    counted(desk.names, "move")
    counted(desk.place, "close_journal")


@pytest.mark.parametrize(("backend", "stride"), [("onnxruntime-fp32", 1), ("openvino-fp32", 2)])
def test_after_a_kill_anywhere_the_same_swap_completes_and_another_undoes(
    desk: Desk, backend: str, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill between any two changes; after each kill the clients' route works."""
    desk.publish(3, name=backend)
    points = 0
    for point in range(1, 30, stride):
        with monkeypatch.context() as patch:
            die_at(desk, point, patch)
            try:
                desk.swap.run("promote", 3, 1, "f")
            except Killed:
                points += 1
            else:
                break  # never reached: all points are done
        target = desk.place.route().champion
        assert target is not None
        found = desk.client.predict(windows(), model=target.model, version=target.version)
        np.testing.assert_allclose(found, logits(target.version), atol=1e-4)
        if (point // stride) % 2:
            desk.swap.run("promote", 3, 1, "f")
            desk.serves(3)
            desk.swap.run("rollback", 1, None, "f")
        else:
            desk.swap.reconcile()
        desk.serves(1)
    assert points >= 4
    desk.serves(3)


def test_a_killed_stub_process_is_detected_by_golden_requests_and_reloaded(
    desk: Desk, live_triton: TritonServer
) -> None:
    for child in psutil.Process(live_triton.pid).children(recursive=True):
        if "python_backend_stub" in child.name():
            child.kill()
    assert desk.client.ready()  # ready is not reliable
    assert not desk.swap.run("promote", 1, None, "f")
    desk.serves(1)


def test_a_restarted_server_with_nothing_loaded_is_recovered(desk: Desk) -> None:
    desk.client.unload(MODEL_NAME)
    assert not desk.client.ready(MODEL_NAME)
    assert not desk.swap.run("rollback", 1, None, "f")
    desk.serves(1)


def test_server_killed_in_the_middle_then_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "home").resolved()
    with running(settings, settings.serving_repository) as server:
        desk = Desk(server, tmp_path)
        for version in (1, 2):
            desk.publish(version)
        desk.swap.run("promote", 1, None, "f")
        real = desk.client.load

        def kill(model: str = MODEL_NAME) -> None:
            os.kill(server.pid, signal.SIGKILL)
            real(model)

        monkeypatch.setattr(desk.client, "load", kill)
        with pytest.raises(ServingError) as caught:
            desk.swap.run("promote", 2, 1, "f")
        assert "not verified again" in caught.value.__notes__[0]
        assert desk.place.versions() == (1,)  # a restart loads this
        assert desk.place.route().champion == Target(model=MODEL_NAME, version=1)
        assert desk.names.aliases() == (1, None)
    with running(settings, settings.serving_repository, models=(MODEL_NAME,)) as server:
        again = Desk(server, tmp_path)
        again.names = desk.names
        assert again.swap.run("promote", 2, 1, "f")
        again.serves(2)
