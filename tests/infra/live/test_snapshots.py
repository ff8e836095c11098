"""Files of state and offset."""

from pathlib import Path
from threading import Event

import pytest

from infra.live.kafka.clients import Partition
from infra.live.snapshots import Saved, SharedSnapshots, file_of, read, write
from model_code.errors import IntegrityError, SharedStoreError
from model_code.storage.objects import Objects

PARTITION = Partition("ticks", 3)
SAVED = Saved("ticks", 3, 17, {"A": b"state"})


def test_a_file_is_replaced_and_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "group"
    assert read(folder, PARTITION) is None
    write(folder, Saved("ticks", 3, 5, {}))
    write(folder, SAVED)
    assert read(folder, PARTITION) == SAVED
    assert read(folder, Partition("ticks", 4)) is None
    assert [path.name for path in folder.iterdir()] == ["ticks-3.state"]


@pytest.mark.parametrize("cut", [0, 10, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    write(tmp_path, SAVED)
    path = file_of(tmp_path, PARTITION)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(IntegrityError, match="truncated or changed") as error:
        read(tmp_path, PARTITION)
    assert error.value.where == str(path)


def test_the_offset_of_another_partition_is_refused(tmp_path: Path) -> None:
    write(tmp_path, Saved("ticks", 4, 5, {}))
    file_of(tmp_path, Partition("ticks", 4)).rename(file_of(tmp_path, PARTITION))
    with pytest.raises(IntegrityError, match=r"the file is of ticks\[4\]"):
        read(tmp_path, PARTITION)


def test_the_newest_state_is_copied_to_the_shared_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, lines = Objects(tmp_path.as_uri()), list[str]()
    shared = SharedSnapshots(objects, "live/g", lines.append)
    assert shared.read(PARTITION) is None
    slow, write_object, written = Event(), objects.write, list[bytes]()

    def write_slowly(key: str, data: bytes) -> None:
        slow.wait(10)
        written.append(data)
        write_object(key, data)

    monkeypatch.setattr(objects, "write", write_slowly)
    for offset in range(100):
        shared.copy(Saved("ticks", 3, offset, {}))
    slow.set()
    shared.close()
    assert len(written) <= 2  # one was on its way, and of the others only the newest
    assert shared.read(PARTITION) == Saved("ticks", 3, 99, {})
    assert lines == []


def test_a_store_that_does_not_answer_or_a_damaged_copy_costs_only_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, lines = Objects(tmp_path.as_uri()), list[str]()
    shared = SharedSnapshots(objects, "live/g", lines.append)
    objects.write("live/g/ticks-3.state", b"short")
    assert shared.read(PARTITION) is None
    assert "truncated or changed" in lines[0]

    def refuse(*_: object) -> None:
        raise SharedStoreError("the shared store did not answer")

    monkeypatch.setattr(objects, "write", refuse)
    shared.copy(SAVED)
    shared.close()
    assert "no copy of the snapshot of ticks[3]" in lines[1]
