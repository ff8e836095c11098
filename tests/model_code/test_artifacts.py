import errno
import os
import pickle
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_code import artifacts
from model_code.artifacts import (
    ArtifactRef,
    ArtifactStore,
    atomic_file,
    atomic_folder,
    hash_path,
)
from model_code.errors import DataError, IntegrityError, StorageError
from model_code.storage.objects import Objects


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_put_moves_a_file_to_its_hash_and_open_returns_it(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    with store.scratch() as scratch:
        (scratch / "a.txt").write_text("tick")
        ref = store.put(scratch / "a.txt")
    assert store.open(ref).read_text() == "tick"
    assert ref.sha256 in store.path(ref).parts
    assert not scratch.exists()


def test_equal_bytes_are_kept_once(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    refs = []
    for _ in range(2):
        with store.scratch() as scratch:
            (scratch / "a.txt").write_text("tick")
            refs.append(store.put(scratch / "a.txt"))
    assert refs[0] == refs[1]
    assert names(tmp_path).count("a.txt") == 1


def test_folder_hash_depends_on_names_and_bytes(tmp_path: Path) -> None:
    for folder, name, text in (("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    hashes = [hash_path(tmp_path / folder) for folder in "abcd"]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_tampered_artefact_is_refused_and_then_replaced(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def put() -> Path:
        with store.scratch() as scratch:
            (scratch / "model.onnx").write_bytes(b"weights")
            refs.append(store.put(scratch / "model.onnx"))
        return store.path(refs[-1])

    refs: list[ArtifactRef] = []
    put().write_bytes(b"evil")
    with pytest.raises(IntegrityError, match=r"model\.onnx was changed after it was written"):
        store.open(refs[0])
    put()
    assert store.open(refs[0]).read_bytes() == b"weights"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is hashed, in order; the clock is a minute ahead, so that all files are old."""
    found: list[Path] = []
    monkeypatch.setattr(artifacts, "_hashes", {})

    def noted(path: Path) -> str:
        found.append(path)
        return hash_path(path)

    monkeypatch.setattr(artifacts, "hash_path", noted)
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 60 * 10**9)
    return found


def stored(root: Path, name: str) -> tuple[ArtifactStore, ArtifactRef]:
    """A store with one artefact: a file, or a folder of two files."""
    store = ArtifactStore(root)
    with store.scratch() as scratch:
        path = scratch / name
        if name == "folder":
            (path / "inner").mkdir(parents=True)
            (path / "inner" / "a").write_text("tick")
            (path / "b").write_text("tock")
        else:
            path.write_text("tick")
        return store, store.put(path)


@pytest.mark.parametrize("name", ["a.txt", "folder"])
def test_an_unchanged_artefact_is_hashed_once(
    tmp_path: Path, hashed: list[Path], name: str
) -> None:
    store, ref = stored(tmp_path, name)
    hashed.clear()
    paths = {store.open(ref) for _ in range(3)} | {ArtifactStore(tmp_path).open(ref)}
    assert paths == {store.path(ref)}
    assert hashed.count(store.path(ref)) == 1


def test_a_young_artefact_is_hashed_each_time(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ref = stored(tmp_path, "a.txt")
    hashed.clear()
    changed = store.path(ref).stat().st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: changed + artifacts.RACY_NS - 1)
    for _ in range(2):
        store.open(ref)
    assert len(hashed) == 2


@pytest.mark.parametrize("name", ["a.txt", "folder"])
@pytest.mark.parametrize("how", ["written over", "replaced"])
def test_changed_bytes_of_equal_size_and_time_are_found(
    tmp_path: Path, hashed: list[Path], name: str, how: str
) -> None:
    store, ref = stored(tmp_path, name)
    store.open(ref)
    path = store.path(ref) / "inner" / "a" if name == "folder" else store.path(ref)
    before = path.stat()
    time.sleep(0.05)  # more than a step of the file's clock
    if how == "replaced":
        (tmp_path / "other").write_text("tack")
        (tmp_path / "other").replace(path)
    else:
        path.write_text("tack")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    for _ in range(2):
        with pytest.raises(IntegrityError, match="was changed after it was written"):
            store.open(ref)
    path.write_text("tick")
    assert store.open(ref) == store.path(ref)
    assert hashed


def test_a_file_more_or_less_in_a_folder_is_found(tmp_path: Path, hashed: list[Path]) -> None:
    store, ref = stored(tmp_path, "folder")
    folder = store.open(ref)
    (folder / "inner" / "more").write_text("")
    with pytest.raises(IntegrityError, match="was changed"):
        store.open(ref)
    (folder / "inner" / "more").unlink()
    assert store.open(ref) == folder
    (folder / "b").unlink()
    with pytest.raises(IntegrityError, match="was changed"):
        store.open(ref)
    assert folder in hashed


def test_threads_open_artefacts_at_the_same_time(tmp_path: Path, hashed: list[Path]) -> None:
    store, ref = stored(tmp_path, "folder")
    hashed.clear()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: store.open(ref), range(200))) == {store.path(ref)}
    assert 1 <= hashed.count(store.path(ref)) <= 8


def test_a_missing_artefact_says_how_to_compute_it_again(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.scratch() as scratch:
        (scratch / "a").write_text("x")
        ref = store.put(scratch / "a")
    store.path(ref).unlink()
    with pytest.raises(IntegrityError, match="is missing") as caught:
        store.open(ref)
    assert "rerun --last-failed" in str(caught.value)


def test_atomic_file_leaves_nothing_when_the_writer_fails(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    with pytest.raises(ValueError, match="halfway"), atomic_file(target) as temporary:
        temporary.write_text("new")
        raise ValueError("halfway")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_atomic_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="halfway"), atomic_folder(tmp_path / "v1") as folder:
        (folder / "a").write_text("x")
        raise ValueError("halfway")
    assert names(tmp_path) == []
    with atomic_folder(tmp_path / "v1") as folder:
        (folder / "a").write_text("x")
    assert names(tmp_path) == ["a", "v1"]


def test_disk_full_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    # a real error of the kernel, through a limit on file size, in a child process
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        try:
            with atomic_file(tmp_path / "big.bin") as temporary:
                temporary.write_bytes(b"x" * 4096)
        except StorageError as error:
            os._exit(0 if "cannot write big.bin" in str(error) else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert names(tmp_path) == []


def test_no_space_left_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught, atomic_file(tmp_path / "a.bin"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "cannot write a.bin: No space left on device" in str(caught.value)
    assert "df -h" in str(caught.value)


def test_errors_survive_pickling_with_their_parts() -> None:
    error = pickle.loads(pickle.dumps(DataError("bad", where="file.csv", remedy="fix it")))
    assert isinstance(error, DataError)
    assert str(error) == "bad\n  where: file.csv\n  do:    fix it"


def shared_store(home: Path, shared: Objects, cache_bytes: int | None = None) -> ArtifactStore:
    return ArtifactStore(home, shared, cache_bytes)


@pytest.fixture
def shared(tmp_path: Path) -> Objects:
    return Objects((tmp_path / "shared").as_uri())


def put_text(store: ArtifactStore, name: str, text: str) -> ArtifactRef:
    with store.scratch() as scratch:
        (scratch / name).write_text(text)
        return store.put(scratch / name)


def test_another_home_fetches_what_it_lacks(tmp_path: Path, shared: Objects) -> None:
    one, other = shared_store(tmp_path / "a", shared), shared_store(tmp_path / "b", shared)
    file = put_text(one, "x", "hello")
    with one.scratch() as scratch:
        (scratch / "day" / "inner").mkdir(parents=True)
        (scratch / "day" / "inner" / "a").write_text("a")
        folder = one.put(scratch / "day")
    assert (file.size, folder.size) == (5, 1)
    assert not other.path(file).exists()
    assert other.has(file)
    assert other.open(file).read_text() == "hello"
    assert (other.open(folder) / "inner" / "a").read_text() == "a"
    assert not ArtifactStore(tmp_path / "c").has(file)


def test_a_damaged_copy_is_fetched_again(tmp_path: Path, shared: Objects) -> None:
    one = shared_store(tmp_path / "a", shared)
    ref = put_text(one, "x", "hello")
    one.path(ref).write_text("other")
    assert one.open(ref).read_text() == "hello"


def test_damaged_shared_bytes_are_refused_and_not_kept(tmp_path: Path, shared: Objects) -> None:
    ref = put_text(shared_store(tmp_path / "a", shared), "x", "hello")
    shared.write(f"artifacts/{ref.uri}", b"evil!")
    other = shared_store(tmp_path / "b", shared)
    with pytest.raises(IntegrityError, match="was changed") as found:
        other.open(ref)
    assert found.value.where == f"{shared.uri}/artifacts/{ref.uri}"
    assert not other.path(ref).exists()


def test_a_dropped_artefact_is_gone_everywhere(tmp_path: Path, shared: Objects) -> None:
    one = shared_store(tmp_path / "a", shared)
    ref = put_text(one, "x", "hello")
    one.drop(ref)
    assert not one.has(ref)
    with pytest.raises(IntegrityError, match="is missing"):
        shared_store(tmp_path / "b", shared).open(ref)


def test_the_cache_keeps_its_bound(tmp_path: Path, shared: Objects) -> None:
    store = shared_store(tmp_path / "a", shared, cache_bytes=250)
    refs = [put_text(store, f"{n}", f"{n}" * 100) for n in range(4)]
    assert all(store.path(ref).exists() for ref in refs)  # a night's own stay
    for age, ref in zip((40, 30, 20, 15), refs, strict=True):
        aged = time.time() - age * 3600
        os.utime(store.path(ref).parent, (aged, aged))
    store.open(refs[0])  # used now: it is not the first to go any more
    newest = put_text(store, "new", "x" * 100)
    here = [store.path(ref).exists() for ref in (*refs, newest)]
    assert here == [True, False, False, False, True]
    assert store.open(refs[1]).read_text() == "1" * 100


def test_what_was_never_shared_is_not_trimmed(tmp_path: Path, shared: Objects) -> None:
    before = put_text(ArtifactStore(tmp_path / "a"), "old", "o" * 300)
    store = shared_store(tmp_path / "a", shared, cache_bytes=100)
    aged = time.time() - 40 * 3600
    os.utime(store.path(before).parent, (aged, aged))
    put_text(store, "new", "x" * 100)
    assert store.path(before).exists()
    store.share(before)
    assert shared_store(tmp_path / "b", shared).open(before).read_text() == "o" * 300
