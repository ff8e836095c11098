"""Files of state and offset."""

from pathlib import Path

import pytest

from infra.live.kafka.clients import Partition
from infra.live.snapshots import Saved, file_of, read, write
from model_code.errors import IntegrityError

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
