"""The serving repository of one host, seen and restored by others through the store."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_code.errors import ConfigError, IntegrityError, SharedStoreError
from model_code.repository.policy import policy_path
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, Settings
from model_code.storage.objects import Objects
from model_code.storage.serving import (
    HOST,
    OtherHostError,
    fetch_served,
    follow_serving,
    is_elsewhere,
    refuse_elsewhere,
    require_here,
    restore_serving,
    serving_host,
    share_serving,
)
from tests.support.s3 import s3_bucket
from tests.support.targets import TwoTargets


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("serving") as uri:
        yield uri


@pytest.fixture(params=["file", "s3"])
def hosts(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> tuple[Settings, Settings]:
    """The serving host with versions 1 and 2, of which 2 serves, and another host."""
    store = f"file://{tmp_path / 'store'}"
    if request.param == "s3":
        store = f"{bucket}/{tmp_path.name}"
    desk = TwoTargets(tmp_path / "a")
    desk.change("promote", 2, 1)
    one = Settings(home=tmp_path / "a", serving=desk.place.root, store=store).resolved()
    policy_path(one.serving_repository).write_text("reviewers: [ada]\n")
    require_here(one)
    assert share_serving(one) == ""
    return one, Settings(home=tmp_path / "b", store=store).resolved()


def repository(settings: Settings) -> ServingRepository:
    return ServingRepository(settings.serving_repository)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_first_host_that_promotes_has_the_repository(
    hosts: tuple[Settings, Settings],
) -> None:
    one, other = hosts
    require_here(one)
    assert not is_elsewhere(one)
    assert is_elsewhere(other)
    for check in (require_here, refuse_elsewhere):
        with pytest.raises(OtherHostError, match="the serving repository is on host") as caught:
            check(other)
        assert caught.value.where == str(one.serving_repository)
    Objects(str(one.store)).write(HOST, b"{}")
    with pytest.raises(IntegrityError, match="record of the serving host is malformed"):
        require_here(one)


def test_another_host_reads_policy_route_and_emergencies(hosts: tuple[Settings, Settings]) -> None:
    one, other = hosts
    assert not follow_serving(one)
    assert follow_serving(other)
    assert repository(other).route() == repository(one).route()
    assert policy_path(other.serving_repository).read_text() == "reviewers: [ada]\n"
    assert repository(other).known() == (), "its Triton serves nothing"
    repository(one).turn(Route(champion=Target(model=MODEL_NAME, version=1)))
    repository(one).fence.begin(1, 2, None, "ada", "wrong", ())
    share_serving(one)
    follow_serving(other)
    assert repository(other).route() == repository(one).route()
    assert repository(other).fence.read(1) == repository(one).fence.read(1)
    share_serving(other)  # it must not write
    assert serving_host(one) == serving_host(other)


def test_another_host_fetches_a_version_that_served(
    hosts: tuple[Settings, Settings], tmp_path: Path
) -> None:
    one, other = hosts
    assert fetch_served(other, 1, tmp_path / "served")
    assert contents(tmp_path / "served") == contents(repository(one).folder(1))
    assert not fetch_served(other, 3, tmp_path / "none")
    assert not fetch_served(other.resolved(store=None), 1, tmp_path / "none")


def test_a_new_host_takes_over_with_every_version(hosts: tuple[Settings, Settings]) -> None:
    one, other = hosts
    follow_serving(other)
    with pytest.raises(OtherHostError):
        restore_serving(other, take_over=False)
    assert restore_serving(other, take_over=True) == (1, 2)
    assert repository(other).versions() == (2,), "where Triton reads it"
    for version in (1, 2):
        here, there = (repository(found).folder(version) for found in hosts)
        assert contents(here) == contents(there)
    assert restore_serving(other, take_over=True) == (1, 2)
    assert not is_elsewhere(other)
    with pytest.raises(OtherHostError):
        require_here(one)
    with pytest.raises(ConfigError, match="a serving repository of its own"):
        follow_serving(one)
    with pytest.raises(ConfigError, match="a serving repository of its own"):
        restore_serving(one, take_over=True)


def test_a_lost_disk_is_restored_and_what_is_newer_here_stays(
    hosts: tuple[Settings, Settings],
) -> None:
    one, _ = hosts
    before = repository(one).route()
    shutil.rmtree(repository(one).folder(1))
    repository(one).turn(Route())
    assert restore_serving(one, take_over=False) == (1, 2)
    assert repository(one).route() == Route()
    shutil.rmtree(one.serving_repository)
    shutil.rmtree(repository(one).state)
    policy_path(one.serving_repository).unlink()
    assert restore_serving(one, take_over=False) == (1, 2)
    assert repository(one).route() == before
    assert policy_path(one.serving_repository).exists()


def test_a_store_that_does_not_answer_is_named_and_is_no_error(
    hosts: tuple[Settings, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = hosts

    def away(*_: object) -> list[str]:
        raise SharedStoreError("the shared store did not answer")

    monkeypatch.setattr(Objects, "keys", away)
    assert share_serving(one) == "the shared store did not answer"


def test_a_home_alone_has_its_own(tmp_path: Path) -> None:
    alone = Settings(home=tmp_path).resolved()
    require_here(alone)
    assert serving_host(alone) is None
    assert not is_elsewhere(alone)
    assert not follow_serving(alone)
    assert share_serving(alone) == ""
    with pytest.raises(ConfigError, match="no store is shared"):
        restore_serving(alone, take_over=False)
