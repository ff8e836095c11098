"""Content-addressed artefacts: stages exchange references with a hash.

Every write is atomic: the file is written to a temporary name beside the target, flushed, then
renamed. Every read is checked: the bytes are hashed once in a process, and again when a file's
size, modification time, change time or inode is another.
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

from pydantic import BaseModel, ConfigDict

from model_code.errors import IntegrityError, StorageError

RACY_NS = 2_000_000_000  # two writes within one step of a file's clock look the same: FAT's has 2 s
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
# SQLite reports a full disk only in its message, and MLflow passes that on
DISK_FULL_MESSAGES = ("disk is full", "No space left on device")


class ArtifactRef(BaseModel):
    """Name of an artefact and the hash of its bytes; its `ArtifactStore` knows where it lies.

    It holds no path, so that what names it stays valid when the store moves.

    Attributes:
        name: file or folder name.
        sha256: of the file's bytes, or of the folder's sorted list of (relative name, sha256).
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str
    sha256: str


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


Generation = tuple[tuple[str, int, int, int, int], ...]
_hashes: dict[Path, tuple[Generation, str]] = {}
_hashes_lock = Lock()


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
    """Artefacts by hash: `<root>/<sha[:2]>/<sha>/<name>`; equal bytes are stored once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, ref: ArtifactRef) -> Path:
        """Where an artefact lies, if it is here; its bytes are not checked."""
        return self.root / ref.sha256[:2] / ref.sha256 / ref.name

    def open(self, ref: ArtifactRef) -> Path:
        """Return an artefact's path after checking its bytes.

        Raises:
            IntegrityError: missing, or its bytes differ from the recorded hash.
        """
        path = self.path(ref)
        if not path.exists():
            raise IntegrityError(
                f"artefact {ref.name} is missing",
                where=str(path),
                remedy="compute it again: tickline rerun --last-failed",
            )
        found = hash_once(path)
        if found != ref.sha256:
            raise IntegrityError(
                f"artefact {ref.name} was changed after it was written: "
                f"expected sha256 {ref.sha256[:12]}, found {found[:12]}",
                where=str(path),
                remedy="compute it again: tickline rerun --last-failed",
            )
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
        """Move a finished file or folder into the store and return its reference.

        A stored copy whose bytes were changed since is replaced.

        Raises:
            StorageError: the store cannot be written.
        """
        sha256 = hash_path(path)
        ref = ArtifactRef(name=path.name, sha256=sha256)
        target = self.path(ref)
        if target.exists() and hash_path(target) == sha256:
            return ref
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
        except OSError as error:
            if target.exists() and hash_path(target) == sha256:  # another process stored it first
                return ref
            raise storage_error(error, target) from error
        return ref
