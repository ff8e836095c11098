import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from model_code.market.readers.files import hash_file
from tasks.caching import file_digests
from tasks.caching.file_digests import FileDigests

LOCAL = LocalFileSystem()
SHA = {text: hashlib.sha256(text.encode()).hexdigest() for text in ("first", "other", "longer one")}


@pytest.fixture(autouse=True)
def _old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is a minute ahead: files that a test has just written are old."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 60 * 10**9)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "day.parquet"
    path.write_text("first")
    return path


def table(home: Path) -> Path:
    return home / "market" / "digests.sqlite"


def find(home: Path, *files: Path | str, again: bool = False) -> tuple[list[str], int]:
    """Digests, and how many files were hashed for them."""
    with closing(FileDigests(home, again=again)) as digests:
        found = [digests(LOCAL, str(path)) for path in files]
    assert digests.hashed + digests.known == len(files)
    return found, digests.hashed


def test_a_file_is_hashed_once(tmp_path: Path, file: Path) -> None:
    assert find(tmp_path, file) == ([SHA["first"]], 1)
    assert find(tmp_path, file) == ([SHA["first"]], 0)
    assert find(tmp_path, file, again=True) == ([SHA["first"]], 1)
    assert find(tmp_path, file) == ([SHA["first"]], 0)


@pytest.mark.parametrize("text", ["other", "longer one"])
def test_a_changed_file_is_hashed_again(tmp_path: Path, file: Path, text: str) -> None:
    find(tmp_path, file)
    before = file.stat()
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # only ctime tells, of equal size
    assert find(tmp_path, file) == ([SHA[text]], 1)
    assert find(tmp_path, file) == ([SHA[text]], 0)


def test_a_replaced_file_is_hashed_again(tmp_path: Path, file: Path) -> None:
    find(tmp_path, file)
    other = tmp_path / "other"
    other.write_text("other")
    other.replace(file)
    assert find(tmp_path, file) == ([SHA["other"]], 1)


def test_a_file_that_may_change_within_its_clocks_step_is_not_remembered(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = max(file.stat().st_mtime_ns, file.stat().st_ctime_ns)
    monkeypatch.setattr(time, "time_ns", lambda: written + file_digests.RACY_NS - 1)
    assert [find(tmp_path, file)[1] for _ in range(2)] == [1, 1]
    monkeypatch.setattr(time, "time_ns", lambda: written + file_digests.RACY_NS)
    assert [find(tmp_path, file)[1] for _ in range(2)] == [1, 0]


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(fs: fsspec.AbstractFileSystem, path: str) -> str:
        found = hash_file(fs, path)
        file.write_text("other")
        return found

    monkeypatch.setattr(file_digests, "hash_file", overtaken)
    assert find(tmp_path, file) == ([SHA["first"]], 1)
    monkeypatch.setattr(file_digests, "hash_file", hash_file)
    assert find(tmp_path, file) == ([SHA["other"]], 1)


@pytest.fixture
def objects() -> Iterator[MemoryFileSystem]:
    """An object store in memory."""
    fs = MemoryFileSystem()
    fs.pipe_file("/digests/day.parquet", b"first")
    yield fs
    del fs.store["/digests/day.parquet"]


@pytest.mark.parametrize(
    ("before", "after", "hashed"),
    [('"1"', '"1"', 0), ('"1"', '"2"', 1), (None, None, 1), ('W/"1"', 'W/"1"', 1)],
)
def test_an_objects_tag_says_whether_it_changed(
    tmp_path: Path,
    objects: MemoryFileSystem,
    before: str | None,
    after: str | None,
    hashed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for tag, count in ((before, 1), (after, hashed)):
        monkeypatch.setattr(objects, "info", lambda _, tag=tag: {"size": 5, "ETag": tag})
        with closing(FileDigests(tmp_path)) as digests:
            assert digests(objects, "/digests/day.parquet") == SHA["first"]
        assert digests.hashed == count


def broken(path: Path, how: str) -> None:
    if how == "no database":
        path.write_bytes(b"not a database, though long enough for a header" * 100)
    elif how == "another table":
        path.unlink()
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE digests (name TEXT)")
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2 :] = b"\xa5" * (len(data) - len(data) // 2)
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["no database", "another table", "damaged pages"])
def test_a_broken_table_is_rebuilt(tmp_path: Path, how: str) -> None:
    files = [tmp_path / f"{i}.csv" for i in range(300)]
    for path in files:
        path.write_text(path.name)
    before = find(tmp_path, *files)
    broken(table(tmp_path), how)
    found, hashed = find(tmp_path, *files)
    assert found == before[0]
    assert 0 < hashed <= 300
    find(tmp_path, *files)
    assert find(tmp_path, *files) == (before[0], 0)


def test_an_empty_table_is_filled(tmp_path: Path, file: Path) -> None:
    table(tmp_path).parent.mkdir()
    table(tmp_path).touch()
    assert [find(tmp_path, file)[1] for _ in range(2)] == [1, 0]


def test_a_table_that_another_process_locks_is_done_without(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "BUSY_S", 0.05)
    other = tmp_path / "other"
    other.write_text("other")
    find(tmp_path, file)
    with closing(sqlite3.connect(table(tmp_path), isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        assert find(tmp_path, file, other) == ([SHA["first"], SHA["other"]], 1)
    assert find(tmp_path, file, other)[1] == 1


def test_a_home_that_cannot_hold_a_table_is_done_without(tmp_path: Path, file: Path) -> None:
    (tmp_path / "market").write_text("a file in place of the folder")
    assert [find(tmp_path, file) for _ in range(2)] == [([SHA["first"]], 1)] * 2


PROGRAM = """
import sys, time
from contextlib import closing
from pathlib import Path
from fsspec.implementations.local import LocalFileSystem
from tasks.caching import file_digests
file_digests.BATCH, file_digests.RACY_NS = 3, 0
home, fs = Path(sys.argv[1]), LocalFileSystem()
with closing(file_digests.FileDigests(home)) as digests:
    for path in sys.argv[2:]:
        digests(fs, path)
"""


def test_processes_share_a_table(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.csv" for i in range(60)]
    for path in files:
        path.write_text(path.name)
    table(tmp_path).parent.mkdir()
    table(tmp_path).write_bytes(b"broken" * 1000)  # they rebuild it at the same time
    commands = [
        [sys.executable, "-c", PROGRAM, str(tmp_path), *map(str, files[part::3])]
        for part in range(3)
    ]
    running = [subprocess.Popen(command, cwd=Path(__file__).parents[3]) for command in commands]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    expected = [hashlib.sha256(path.name.encode()).hexdigest() for path in files]
    assert find(tmp_path, *files)[0] == expected
    assert find(tmp_path, *files) == (expected, 0)
