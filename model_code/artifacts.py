"""Content-addressed artefacts: stages exchange references with a hash.

A store is a folder, or a folder in front of what several hosts share: then every artefact is
written to both, read from the folder, and fetched if it is not there. Every write is atomic: the
file is written to a temporary name beside the target, flushed, then renamed. Every read is checked:
the bytes are hashed once in a process, and again when a file's size, modification time, change time
or inode is another.
"""

import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from model_code.errors import IntegrityError, StorageError

if TYPE_CHECKING:
    from model_code.storage.objects import Objects

RACY_NS = 2_000_000_000  # two writes within one step of a file's clock look the same: FAT's has 2 s
SHARED = "artifacts"  # prefix in the shared store
IN_USE_S = 12 * 3600  # a night's own artefacts stay in the cache
MARK_EVERY_S = 600
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
# SQLite reports a full disk only in its message, and MLflow passes that on
DISK_FULL_MESSAGES = ("disk is full", "No space left on device")


class ArtifactRef(BaseModel):
    """Address of an artefact below its store, the hash of its bytes and their number.

    The address is relative (RFC 3986), so that what names it stays valid when the store moves.

    Attributes:
        uri: `<sha[:2]>/<sha>/<name>`.
        sha256: of the file's bytes, or of the folder's sorted list of (relative name, sha256).
        size: in bytes, of all files of a folder.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    uri: str
    sha256: str
    size: int

    @classmethod
    def of(cls, name: str, sha256: str, size: int = 0) -> Self:
        """The reference of a file or folder of that name."""
        return cls(uri=f"{sha256[:2]}/{sha256}/{name}", sha256=sha256, size=size)

    @property
    def name(self) -> str:
        """File or folder name."""
        return self.uri.rpartition("/")[2]


def hash_bytes(data: bytes) -> str:
    """sha256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def hash_path(path: Path) -> str:
    """sha256 of a file, or of a folder's sorted (relative name, sha256) lines, in hex."""
    if path.is_dir():
        lines = [
            f"{child.relative_to(path).as_posix()}\0{hash_path(child)}"
            for child in sorted(path.rglob("*"))
            if child.is_file()
        ]
        return hash_bytes("\n".join(lines).encode())
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of a folder's files."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


Generation = tuple[tuple[str, int, int, int, int], ...]
_hashes: dict[Path, tuple[Generation, str]] = {}
_hashes_lock = Lock()
_added: dict[Path, int] = {}  # bytes since a store's folder was measured


def hash_once(path: Path) -> str:
    """`hash_path`, remembered by this process for as long as no file changes; safe with threads.

    A change of the bytes that keeps size and modification time moves the change time, which only
    the system sets. What changed less than two seconds ago is not remembered.
    """
    generation, now = _generation(path), time.time_ns()
    with _hashes_lock:
        known = _hashes.get(path)
    if known and known[0] == generation:
        return known[1]
    found = hash_path(path)
    newest = max((max(times) for _, _, *times, _ in generation), default=now)
    if now - newest >= RACY_NS and _generation(path) == generation:
        with _hashes_lock:
            _hashes[path] = generation, found
    return found


def _generation(path: Path) -> Generation:
    """What changes with the bytes: name, size, modification and change time, inode of each file."""
    files = (
        sorted(child for child in path.rglob("*") if child.is_file()) if path.is_dir() else [path]
    )
    states = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in states)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it there when the block succeeds.

    Raises:
        StorageError: the disk is full or the folder is not writable; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would hide results from a desk's shared group
        temporary.replace(path)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it there when the block succeeds.

    Raises:
        StorageError: the target exists already, the disk is full or not writable.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(path)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def storage_error(error: OSError, path: Path) -> StorageError:
    """Convert a failed write into a `StorageError` with path and remedy."""
    return StorageError(
        f"cannot write {path.name}: {error.strerror or error}",
        where=str(path),
        remedy="free space or fix permissions (df -h, ls -ld), then run the same command again; "
        "finished stages are kept",
    )


class ArtifactStore:
    """Artefacts by hash: `<root>/<sha[:2]>/<sha>/<name>`; equal bytes are stored once.

    Args:
        root: folder of the artefacts that are here.
        shared: what other hosts see too, under `artifacts/`; None: nothing is shared.
        cache_bytes: with `shared`, how much the folder may hold; None: no bound. What was used in
            the last twelve hours stays.
    """

    def __init__(
        self, root: Path, shared: "Objects | None" = None, cache_bytes: int | None = None
    ) -> None:
        self.root, self.shared, self._cache_bytes = root, shared, cache_bytes

    def path(self, ref: ArtifactRef) -> Path:
        """Where an artefact lies, if it is here; its bytes are not checked."""
        return self.root / ref.uri

    def has(self, ref: ArtifactRef) -> bool:
        """Whether the artefact is here or shared; its bytes are not checked.

        Raises:
            SharedStoreError: the shared store did not answer.
        """
        if self.path(ref).exists():
            return True
        return self.shared is not None and self.shared.has(_key(ref))

    def open(self, ref: ArtifactRef) -> Path:
        """Return an artefact's path after checking its bytes; fetch it if it is not here.

        Raises:
            IntegrityError: missing, or its bytes differ from the recorded hash.
            SharedStoreError: the shared store did not answer.
        """
        path = self.path(ref)
        found = hash_once(path) if path.exists() else None
        if found != ref.sha256 and self._fetch(ref):
            found = ref.sha256
        if found is None:
            raise IntegrityError(
                f"artefact {ref.name} is missing",
                where=str(path),
                remedy="compute it again: tickline rerun --last-failed",
            )
        if found != ref.sha256:
            raise _changed(ref, found, str(path))
        if self.shared:
            _mark_used(path.parent)
        return path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the store's own file system, so that `put` is a rename."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self.root, prefix=".scratch-"))
        except OSError as error:
            raise storage_error(error, self.root) from error
        try:
            yield folder
        except OSError as error:
            if error.errno not in DISK_FAULTS:
                raise
            raise storage_error(error, folder) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, path: Path) -> ArtifactRef:
        """Move a finished file or folder into the store, share it, and return its reference.

        A stored copy whose bytes were changed since is replaced.

        Raises:
            StorageError: the store cannot be written.
            SharedStoreError: the shared store did not answer.
        """
        ref = ArtifactRef.of(path.name, hash_path(path), size_of(path))
        self._place(path, ref)
        self.share(ref)
        return ref

    def share(self, ref: ArtifactRef) -> None:
        """Copy an artefact that is here to the shared store, unless it has it.

        Raises:
            SharedStoreError: the shared store did not answer.
        """
        if self.shared is not None and not self.shared.has(_key(ref)):
            self.shared.upload(self.path(ref), _key(ref))
            self._trim(ref.size)

    def drop(self, ref: ArtifactRef) -> None:
        """Delete an artefact, here and in the shared store.

        Raises:
            SharedStoreError: the shared store did not answer.
        """
        _delete(self.path(ref))
        if self.shared is not None:
            self.shared.delete(_key(ref))

    def _fetch(self, ref: ArtifactRef) -> bool:
        """Copy an artefact from the shared store, check it, and put it in its place.

        Raises:
            IntegrityError: the shared copy's bytes differ from the recorded hash.
        """
        if self.shared is None:
            return False
        with self.scratch() as scratch:
            copy = scratch / ref.name
            if not self.shared.download(_key(ref), copy):
                return False
            found = hash_path(copy)
            if found != ref.sha256:
                raise _changed(ref, found, f"{self.shared.uri}/{_key(ref)}")
            self._place(copy, ref)
        self._trim(ref.size)
        return True

    def _place(self, path: Path, ref: ArtifactRef) -> None:
        target = self.path(ref)
        if target.exists() and hash_path(target) == ref.sha256:
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
        except OSError as error:
            # another process stored it first
            if target.exists() and hash_path(target) == ref.sha256:
                return
            raise storage_error(error, target) from error

    def _trim(self, added: int) -> None:
        """Delete the least recently used artefacts if the folder has outgrown its bound.

        It is measured again after every fiftieth of the bound.
        """
        if self._cache_bytes is None or self.shared is None:
            return
        _added[self.root] = _added.get(self.root, self._cache_bytes) + added
        if _added[self.root] < self._cache_bytes / 50:
            return
        _added[self.root] = 0
        kept = sorted(
            (folder.stat().st_mtime, folder) for folder in self.root.glob("[0-9a-f][0-9a-f]/*")
        )
        sizes = {folder: size_of(folder) for _, folder in kept}
        over = sum(sizes.values()) - self._cache_bytes
        for used, folder in kept:
            if over <= 0 or time.time() - used < IN_USE_S:
                return
            # one that was never shared, from before the home had a shared store, is not a copy
            names = [f"{folder.parent.name}/{folder.name}/{one.name}" for one in folder.iterdir()]
            if all(self.shared.has(f"{SHARED}/{name}") for name in names):
                shutil.rmtree(folder)
                over -= sizes[folder]


def _key(ref: ArtifactRef) -> str:
    return f"{SHARED}/{ref.uri}"


def _changed(ref: ArtifactRef, found: str, where: str) -> IntegrityError:
    return IntegrityError(
        f"artefact {ref.name} was changed after it was written: "
        f"expected sha256 {ref.sha256[:12]}, found {found[:12]}",
        where=where,
        remedy="compute it again: tickline rerun --last-failed",
    )


def _mark_used(folder: Path) -> None:
    """Note the use for `_trim`; once in a while is enough."""
    if time.time() - folder.stat().st_mtime > MARK_EVERY_S:
        os.utime(folder)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
