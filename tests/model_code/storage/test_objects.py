"""Objects by key: in a folder and on a real S3-compatible server, with the same behaviour."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from moto.s3.responses import S3Response

from model_code.errors import ConfigError, SharedStoreError
from model_code.storage import objects as module
from model_code.storage.objects import INDEX, Objects
from tests.support.s3 import s3_bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("tickline") as uri:
        yield uri


@pytest.fixture(params=["file", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> Objects:
    if request.param == "file":
        return Objects(f"file://{tmp_path / 'store'}")
    return Objects(f"{bucket}/{tmp_path.name}")


def test_an_object_is_read_as_written(objects: Objects) -> None:
    assert objects.read("a/b") is None
    objects.write("a/b", b"one")
    objects.write("a/b", b"two")
    assert objects.read("a/b") == b"two"
    assert objects.keys("a") == ["a/b"]
    assert objects.keys("b") == []


def test_of_many_writers_exactly_one_creates(objects: Objects) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: objects.create("one", b"%d" % n), range(8)))
    assert made.count(True) == 1
    assert objects.read("one") == b"%d" % made.index(True)
    # the winner's own retry, after an answer that was lost
    assert objects.create("one", b"%d" % made.index(True))


@pytest.fixture
def conflicts(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The server answers the next puts, of this number, with 409."""
    answer, left = S3Response.put_object, count(0, -1)

    def next_puts(number: int) -> None:
        nonlocal left
        left = count(number, -1)

    def put_object(server: S3Response) -> Any:
        if next(left) > 0:
            return 409, {}, "<Error><Code>ConditionalRequestConflict</Code></Error>"
        return answer(server)

    monkeypatch.setattr(S3Response, "put_object", put_object)
    monkeypatch.setattr(module, "TRIES_AFTER_S", (0, 0, 0))
    return next_puts


def test_a_put_that_conflicts_with_another_request_is_tried_again(
    bucket: str, tmp_path: Path, conflicts: Callable[[int], None]
) -> None:
    objects = Objects(f"{bucket}/{tmp_path.name}")
    conflicts(2)
    assert objects.create("one", b"mine")
    conflicts(1)
    assert not objects.create("one", b"other")
    assert objects.read("one") == b"mine"


def test_a_put_that_conflicts_each_time_is_an_error(
    bucket: str, tmp_path: Path, conflicts: Callable[[int], None]
) -> None:
    objects = Objects(f"{bucket}/{tmp_path.name}")
    conflicts(3)
    with pytest.raises(SharedStoreError, match="409"):
        objects.create("one", b"mine")
    assert objects.read("one") is None


def test_files_and_folders_come_back_with_their_bytes(objects: Objects, tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_bytes(os.urandom(20_000_000))  # more than one part
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a").write_text("a")
    (folder / "b").write_text("")
    objects.upload(file, "x/file")
    objects.upload(folder, "x/folder")
    assert objects.has("x/file")
    assert objects.has("x/folder")
    assert objects.download("x/file", tmp_path / "copy")
    assert objects.download("x/folder", tmp_path / "copies")
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    assert (tmp_path / "copies" / "inner" / "a").read_text() == "a"
    assert (tmp_path / "copies" / "b").read_text() == ""
    written = objects.modified("x/file")
    assert written is not None
    assert (tmp_path / "copy").stat().st_mtime == pytest.approx(written, abs=0.01)
    assert abs(written - time.time()) < 60
    assert not objects.download("x/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_without_its_index_does_not_count(objects: Objects, tmp_path: Path) -> None:
    objects.write("half/a", b"a")
    assert not objects.has("half")
    assert not objects.download("half", tmp_path / "half")


def test_deleting(objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("a")
    objects.upload(tmp_path / "folder", "x")
    objects.write("y", b"y")
    for key in ("x", "y", "never"):
        objects.delete(key)
    assert not objects.has("x")
    assert objects.read(f"x/{INDEX}") is None
    assert objects.keys("x") == []
    assert objects.read("y") is None


def test_an_address_of_no_known_kind() -> None:
    with pytest.raises(ConfigError, match="not one") as found:
        Objects("carrier-pigeon://loft")
    assert "s3://BUCKET/PREFIX" in found.value.remedy


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    with pytest.raises(SharedStoreError, match="refused or did not answer") as found:
        Objects("s3://absent/x").write("a", b"a")
    assert found.value.where == "s3://absent/x/a"
