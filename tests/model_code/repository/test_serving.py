import shutil
from pathlib import Path

import pytest

from model_code.errors import IntegrityError, PromotionError, StorageError
from model_code.repository.manifest import Manifest
from model_code.repository.route import Route
from model_code.repository.serving import Journal, ServingRepository
from tests.support.serving import APPROVAL, staged, weights


@pytest.fixture
def place(tmp_path: Path) -> ServingRepository:
    return ServingRepository(tmp_path / "serving")


def publish(place: ServingRepository, version: int, **how) -> Path:
    folder = staged(place.root.with_name("staging"), version, **how)
    place.publish(folder, APPROVAL)
    return folder


def test_publishing_copies_everything_and_records_the_approval(place: ServingRepository) -> None:
    folder = publish(place, 1)
    found = place.folder(1)
    assert {path.name for path in found.iterdir()} == {path.name for path in folder.iterdir()}
    assert Manifest.load(found).approval == APPROVAL
    assert Manifest.load(found).identity == Manifest.load(folder).identity
    assert place.versions() == ()  # not in Triton's repository yet
    assert place.known() == (1,)


def test_the_same_bytes_again_change_nothing_others_are_refused(
    place: ServingRepository, tmp_path: Path
) -> None:
    folder = publish(place, 1)
    before = (place.folder(1) / "manifest.json").stat()
    place.publish(folder, APPROVAL.model_copy(update={"reviewer": "grace"}))
    assert (place.folder(1) / "manifest.json").stat() == before
    other = staged(tmp_path / "other" / "staging", 1, matrix=weights(99))
    with pytest.raises(IntegrityError, match="has already served with other bytes"):
        place.publish(other, APPROVAL)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "config.pbtxt", "manifest.json"])
def test_a_changed_file_is_refused_before_it_is_copied(
    place: ServingRepository, tmp_path: Path, name: str
) -> None:
    folder = staged(tmp_path / "staging", 1)
    with (folder / name).open("ab") as file:
        file.write(b"#")
    with pytest.raises(IntegrityError):
        place.publish(folder, APPROVAL)
    assert place.known() == ()


def test_a_full_disk_while_publishing_leaves_nothing_behind(
    place: ServingRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = staged(place.root.with_name("staging"), 1)
    monkeypatch.setattr("model_code.repository.serving.shutil.copytree", full_tree)
    with pytest.raises(StorageError, match="No space left on device"):
        place.publish(folder, APPROVAL)
    assert list(place.archive.iterdir()) == []
    assert place.known() == ()


def test_a_really_full_disk_while_publishing_leaves_nothing_behind(
    tmp_path: Path, small_disk: Path
) -> None:
    place = ServingRepository(small_disk / "serving")
    folder = staged(tmp_path / "staging", 1)
    size = sum(path.stat().st_size for path in folder.iterdir())
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((1 << 20) - size // 2))
    with pytest.raises(StorageError, match="No space left on device"):
        place.publish(folder, APPROVAL)
    assert list(place.archive.iterdir()) == []
    assert place.known() == ()
    ballast.unlink()
    place.publish(folder, APPROVAL)
    assert Manifest.load(place.folder(1)).approval == APPROVAL


def test_a_temporary_file_of_a_killed_process_is_removed(place: ServingRepository) -> None:
    publish(place, 1)
    place.arrange((1,))
    (place.home / ".config.pbtxt.abc.tmp").write_text("half of")
    place.arrange(())
    assert not place.home.exists()


def full_tree(source: Path, target: Path, **how) -> None:
    shutil.copyfile(source / "model.onnx", target / "model.onnx")
    raise OSError(28, "No space left on device")


def test_arranging_moves_versions_between_model_and_archive(place: ServingRepository) -> None:
    for version in (1, 2, 3):
        publish(place, version)
    place.arrange((1, 2))
    assert place.versions() == (1, 2)
    place.arrange((2, 3))
    assert place.versions() == (2, 3)
    assert place.known() == (1, 2, 3)
    place.arrange(())
    assert not place.home.exists()
    assert place.known() == (1, 2, 3)


def test_versions_of_different_configurations_do_not_share_a_model(
    place: ServingRepository,
) -> None:
    publish(place, 1)
    publish(place, 2, name="openvino-fp32")
    assert not place.same_config(1, 2)
    with pytest.raises(IntegrityError, match="different configurations"):
        place.arrange((1, 2))
    place.arrange((1,))
    first = (place.home / "config.pbtxt").read_bytes()
    place.arrange((2,))
    assert (place.home / "config.pbtxt").read_bytes() != first


def test_a_version_that_never_served_lists_those_that_did(place: ServingRepository) -> None:
    publish(place, 4)
    with pytest.raises(PromotionError, match="version 5 was never promoted") as caught:
        place.folder(5)
    assert "choose one of 4" in caught.value.remedy


def test_of_two_concurrent_changes_one_is_refused(place: ServingRepository) -> None:
    with (
        place.exclusive(),
        pytest.raises(PromotionError, match=r"another promotion .* \(pid \d+\)"),
        ServingRepository(place.root).exclusive(),
    ):
        raise AssertionError("it must not get here")
    with place.exclusive():
        pass


def test_the_journal_persists_and_a_broken_one_is_reported(place: ServingRepository) -> None:
    assert place.journal() is None
    journal = Journal(
        kind="promote", version=2, route=Route(), versions=(1,), champion=1, previous=None,
        flow_run_id="f",
    )  # fmt: skip
    place.open_journal(journal)
    assert place.journal() == journal
    place.journal_file.write_text("{}")
    with pytest.raises(IntegrityError, match="journal"):
        place.journal()
    place.close_journal()
    place.close_journal()
    assert place.journal() is None
