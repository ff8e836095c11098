"""The shared store that the settings name."""

from pathlib import Path

import pytest

from model_code.settings import Settings
from model_code.storage.objects import Objects
from model_code.storage.shared import FolderCopy, shared_objects


def test_a_home_alone_shares_nothing(tmp_path: Path) -> None:
    assert shared_objects(Settings(home=tmp_path)) is None


def test_the_address_of_the_settings(tmp_path: Path) -> None:
    found = shared_objects(Settings(home=tmp_path, store=str(tmp_path / "shared")))
    assert found is not None
    assert found.uri == (tmp_path / "shared").as_uri()
    found.write("a", b"a")
    assert (tmp_path / "shared" / "a").read_bytes() == b"a"


def test_a_password_in_the_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no password"):
        Settings(home=tmp_path, store="s3://key:secret@bucket/x")


def test_a_folder_and_its_copy(tmp_path: Path) -> None:
    objects = Objects((tmp_path / "shared").as_uri())
    one = FolderCopy(objects, "checkpoints/k", tmp_path / "a")
    other = FolderCopy(objects, "checkpoints/k", tmp_path / "b")
    one.pull()
    one.push()
    one.folder.mkdir()
    (one.folder / "epoch-0001.pt").write_text("1")
    (one.folder / "epoch-0002.pt").write_text("2")
    (one.folder / ".epoch-0003.pt.x.tmp").write_text("half")
    one.push()
    other.pull()
    assert {path.name: path.read_text() for path in other.folder.iterdir()} == {
        "epoch-0001.pt": "1",
        "epoch-0002.pt": "2",
    }
    (other.folder / "epoch-0001.pt").unlink()
    (other.folder / "epoch-0003.pt").write_text("3")
    other.push()
    assert objects.keys("checkpoints/k") == [f"checkpoints/k/epoch-000{n}.pt" for n in (2, 3)]


def test_without_a_shared_store_a_folder_has_no_copy(tmp_path: Path) -> None:
    alone = FolderCopy(None, "checkpoints/k", tmp_path / "a")
    alone.folder.mkdir()
    (alone.folder / "x").write_text("x")
    alone.push()
    alone.pull()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
