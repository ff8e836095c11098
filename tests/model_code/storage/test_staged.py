"""Staged versions on two homes that share no folder but the store."""

from pathlib import Path

import pytest

from model_code.repository.manifest import Manifest
from model_code.repository.staging import staged_versions
from model_code.settings import MODEL_NAME, Settings
from model_code.storage.staged import drop_staged, fetch_all_staged, fetch_staged, share_staged
from tests.model_code.repository.test_staging import put


@pytest.fixture
def hosts(tmp_path: Path) -> tuple[Settings, Settings]:
    store = str(tmp_path / "shared")
    one, other = (Settings(home=tmp_path / name, store=store).resolved() for name in "ab")
    for version in (1, 2):
        folder = tmp_path / f"engine{version}"
        put(one.staging_repository, version, folder, data=b"graph %d" % version)
        share_staged(one, version)
    return one, other


def test_another_host_has_every_staged_version(hosts: tuple[Settings, Settings]) -> None:
    one, other = hosts
    assert fetch_all_staged(other) == [1, 2]
    for version in ("1", "2"):
        folder = other.staging_repository / MODEL_NAME / version
        Manifest.load(folder).verify(folder)
        original = one.staging_repository / MODEL_NAME / version
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            path.name: path.read_bytes() for path in original.iterdir()
        }
    upper = "config.pbtxt"
    assert (other.staging_repository / MODEL_NAME / upper).read_bytes() == (
        one.staging_repository / MODEL_NAME / upper
    ).read_bytes()


def test_a_version_that_is_nowhere(hosts: tuple[Settings, Settings]) -> None:
    _, other = hosts
    assert not fetch_staged(other, 3)
    assert fetch_staged(other, 2)
    assert staged_versions(other.staging_repository) == [2]


def test_a_dropped_version_is_not_fetched_any_more(hosts: tuple[Settings, Settings]) -> None:
    one, other = hosts
    drop_staged(one, 1)
    assert fetch_all_staged(other) == [2]
    assert fetch_all_staged(one) == [1, 2]


def test_a_home_alone_stages_as_ever(tmp_path: Path) -> None:
    alone = Settings(home=tmp_path / "alone").resolved()
    assert fetch_all_staged(alone) == []
    put(alone.staging_repository, 1, tmp_path / "engine")
    share_staged(alone, 1)
    assert fetch_all_staged(alone) == [1]
    assert fetch_staged(alone, 1)
    assert not fetch_staged(alone, 2)
