"""Changes of the serving version on several targets, and what brings them level."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from model_code.errors import IntegrityError, PromotionError
from model_code.repository.copies import copy_version, mirror
from model_code.repository.route import Route, Target
from model_code.serving.levels import compare, reconcile
from model_code.serving.servers import QuorumError, Server, Servers
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME
from tests.support.serving import weights, write_graph
from tests.support.targets import FakeTriton, TwoTargets


@pytest.fixture
def desk(tmp_path: Path) -> TwoTargets:
    return TwoTargets(tmp_path)


def route(version: int) -> Route:
    return Route(champion=Target(model=MODEL_NAME, version=version))


def nothing_turned(desk: TwoTargets) -> None:
    assert desk.place.route() == desk.copy.route() == route(1)
    assert desk.place.versions() == desk.copy.versions() == (1,)
    assert desk.names.champion == 1
    assert desk.place.journal() is None
    assert desk.east.versions() == [1]


def test_without_the_quorum_nothing_is_turned_and_what_was_loaded_is_unloaded(
    desk: TwoTargets,
) -> None:
    desk.west.away = True
    loads = desk.east.loads
    with pytest.raises(QuorumError, match="1 of 2 targets are ready, the quorum is 2") as caught:
        desk.change("promote", 2, 1)
    assert desk.east.loads > loads  # it had loaded the version
    assert "west: failed to connect (UNAVAILABLE) (west:1)" in caught.value.what
    assert "east:" not in caught.value.what
    nothing_turned(desk)


def test_a_bad_version_is_refused_by_every_target(desk: TwoTargets) -> None:
    desk.publish(3, matrix=weights(3), expected=weights(77))
    with pytest.raises(QuorumError, match=r"0 of 2 targets.*east: .*wrongly.*west: .*wrongly"):
        desk.change("promote", 3, 1)
    nothing_turned(desk)


def test_a_first_version_without_the_quorum_leaves_nothing_serving(tmp_path: Path) -> None:
    desk = TwoTargets(tmp_path, serving=False)
    desk.west.away = True
    with pytest.raises(QuorumError, match="1 of 2 targets"):
        desk.change("promote", 1, None)
    assert desk.place.route() == Route()
    assert desk.place.versions() == desk.copy.versions() == ()
    assert desk.east.versions() == []
    assert desk.names.aliases() == (None, None)
    desk.west.away = False
    assert [one.level for one in reconcile(desk.place, desk.servers())] == [True, True]


def test_with_the_quorum_the_route_turns_and_reconcile_brings_the_laggard_level(
    desk: TwoTargets,
) -> None:
    desk.west.away = True
    assert "UNAVAILABLE" in desk.change("promote", 2, 1, quorum=1)["west"]
    assert desk.place.route() == desk.copy.route() == route(2)  # west's clients ask east
    assert desk.names.champion == 2
    east, west = reconcile(desk.place, desk.servers())
    assert (east.level, east.action, west.level, west.has) == (True, "", False, None)
    desk.west.away = False
    desk.west.restart()
    assert [one.level for one in compare(desk.place, desk.servers())] == [True, False]
    east, west = reconcile(desk.place, desk.servers())
    assert (west.level, west.has, west.wanted, west.action) == (True, (), (1, 2), "loaded 1, 2")
    loads = desk.east.loads, desk.west.loads
    again = reconcile(desk.place, desk.servers())
    assert [(one.level, one.action) for one in again] == [(True, ""), (True, "")]
    assert compare(desk.place, desk.servers()) == again
    assert loads == (desk.east.loads, desk.west.loads)


def test_a_target_lost_after_the_route_turned_is_left_behind(
    desk: TwoTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the quorum, but the version serves already: it is not turned back."""
    desk.change("promote", 2, 1)
    real = Route.save

    def save(self: Route, path: Path) -> None:
        real(self, path)
        desk.west.away = self == route(1)

    monkeypatch.setattr(Route, "save", save)
    assert set(desk.change("promote", 1, 2)) == {"west"}
    assert desk.place.route() == route(1)
    assert desk.place.versions() == (1,)


def test_a_rollback_needs_one_target_only_and_the_other_follows(desk: TwoTargets) -> None:
    desk.change("promote", 2, 1)
    desk.west.away = True
    assert set(desk.change("rollback", 1, None)) == {"west"}
    assert desk.place.route() == route(1)
    desk.west.away = False
    _, west = reconcile(desk.place, desk.servers())
    assert (west.has, west.wanted, west.action) == ((1, 2), (1,), "loaded 1")
    assert desk.west.versions() == [1]


def test_a_damaged_copy_is_refused_and_never_loaded(desk: TwoTargets) -> None:
    desk.west.away = True
    desk.change("promote", 2, 1, quorum=1)
    desk.west.away = False
    assert desk.copy.known() == (1, 2)
    write_graph(desk.copy.folder(2) / "model.onnx", weights(77))
    east, west = reconcile(desk.place, desk.servers())
    assert (east.level, west.level) == (True, False)
    assert "not the one that was built" in west.problem
    assert desk.west.versions() == [1]
    with pytest.raises(IntegrityError) as caught:
        mirror(desk.place, desk.copy, 2)
    assert "move the copy's folder away" in caught.value.remedy
    shutil.rmtree(desk.copy.folder(2))
    assert all(one.level for one in reconcile(desk.place, desk.servers()))


def test_a_damaged_neighbour_is_left_out_of_the_copy(desk: TwoTargets) -> None:
    desk.change("promote", 2, 1)
    write_graph(desk.copy.folder(1) / "model.onnx", weights(77))
    _, west = reconcile(desk.place, desk.servers())
    assert (west.level, west.has, west.wanted) == (True, (1, 2), (2,))
    assert desk.west.versions() == [2]


def test_a_copy_that_arrives_damaged_is_refused_before_its_rename(
    desk: TwoTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.copytree

    def damaging(source: Path, to: Path, **how: Any) -> Path:
        found: Path = real(source, to, **how)
        graph = to / "model.onnx"
        graph.write_bytes(graph.read_bytes()[:-1] + b"?")
        return found

    monkeypatch.setattr("model_code.repository.copies.shutil.copytree", damaging)
    with pytest.raises(QuorumError, match=r"west: .*not the one"):
        desk.change("promote", 2, 1)
    nothing_turned(desk)
    assert desk.copy.known() == (1,)


def test_another_version_of_the_same_number_in_the_copy_is_refused(
    desk: TwoTargets, tmp_path: Path
) -> None:
    other = TwoTargets(tmp_path / "other", serving=False)
    other.publish(3, matrix=weights(9))
    desk.publish(3)
    copy_version(other.place, desk.copy, 3)
    with pytest.raises(QuorumError, match="version 3 of the copy is another one"):
        desk.change("promote", 3, 1)
    nothing_turned(desk)
    desk.servers().withdraw(3, desk.place)
    assert desk.change("promote", 3, 1) == {}


def test_a_copy_below_an_absent_mount_is_not_made_on_this_disk(desk: TwoTargets) -> None:
    shutil.rmtree(desk.copy.root)
    with pytest.raises(QuorumError, match="the target's repository does not exist"):
        desk.change("promote", 2, 1)
    assert not desk.copy.root.exists()
    assert desk.place.route() == route(1)


def test_targets_may_read_one_folder(desk: TwoTargets) -> None:
    shared = FakeTriton("third:1", desk.copy)
    both = [*desk.servers().all, Server("third", shared, desk.copy)]
    servers = Servers(both, 3)
    Swap(desk.place, servers, desk.names).run("promote", 2, 1, "f")
    assert servers.behind == {}
    assert shared.versions() == desk.west.versions() == [1, 2]
    shutil.rmtree(desk.copy.root)
    servers = Servers(both, 1)
    Swap(desk.place, servers, desk.names).run("rollback", 1, None, "f")
    assert set(servers.behind) == {"west", "third"}


def test_reconcile_refuses_an_interrupted_change_and_the_next_change_undoes_it(
    desk: TwoTargets,
) -> None:
    desk.east.away = desk.west.away = True
    with pytest.raises(QuorumError, match="0 of 2") as caught:
        desk.change("promote", 2, 1)
    assert "not verified again" in caught.value.__notes__[0]
    with pytest.raises(PromotionError, match="a promotion of version 2 was interrupted"):
        reconcile(desk.place, desk.servers())
    desk.east.away = desk.west.away = False
    assert desk.change("rollback", 1, None) == {}
    nothing_turned(desk)
    assert all(one.level for one in reconcile(desk.place, desk.servers()))
