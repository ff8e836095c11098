"""Remember the sha256 of market files, so that only new and changed files are hashed.

`<home>/market/digests.sqlite` has a row for each file. It may be deleted at any time: files are
then hashed again. Several processes may use it at once. A broken one is rebuilt; one that cannot be
used (a full disk, no permission) is left alone, and every file is hashed.
"""

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from infra.logs import log
from model_code.market.readers.files import hash_file

BUSY_S = 10  # how long to wait for another process
BATCH = 1000  # rows a transaction: what a killed process loses at most
# A file can change twice within one step of its clock, with equal size: both versions then have the
# same state (git calls such an entry racy). FAT's clock has the longest step, 2 s.
RACY_NS = 2_000_000_000
_TABLE = """CREATE TABLE IF NOT EXISTS digests (
    path TEXT PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL CHECK (length(sha256) = 64)
) WITHOUT ROWID"""
_FIND = "SELECT sha256 FROM digests WHERE path = ? AND state = ?"
_WRITE = "INSERT OR REPLACE INTO digests VALUES (?, ?, ?)"
# not a database, a damaged page, a table of other columns
_BROKEN = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)

Row = tuple[str, str, str]


class FileDigests:
    """Gives a file's sha256: the remembered one if the file's state is the same. Close it.

    A local file's state is its size, modification time, change time and inode; an object's is its
    size and ETag. A file of a file system without either is hashed each time.

    Attributes:
        hashed: files that were hashed.
        known: files whose sha256 was remembered.
    """

    def __init__(self, home: Path, *, again: bool = False) -> None:
        """Open what a home folder remembers.

        Args:
            home: the home folder.
            again: hash every file, and remember the result.
        """
        self.hashed = self.known = 0
        self._path, self._again = home / "market" / "digests.sqlite", again
        self._new: list[Row] = []
        self._database = _opened(self._path)

    def __call__(self, fs: fsspec.AbstractFileSystem, path: str) -> str:
        """sha256 of the file's bytes, in hex."""
        name = path if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(path)
        state, settled = _state(fs, path)
        if state and not self._again and (found := self._found(name, state)):
            self.known += 1
            return found
        sha256 = hash_file(fs, path)
        self.hashed += 1
        if state and settled and _state(fs, path)[0] == state:
            self._new.append((name, state, sha256))
            if len(self._new) >= BATCH:
                self._write()
        return sha256

    def close(self) -> None:
        """Write what is new."""
        self._write()
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _found(self, name: str, state: str) -> str | None:
        if self._database is None:
            return None
        try:
            row = self._database.execute(_FIND, (name, state)).fetchone()
        except sqlite3.Error as error:
            self._recover(error)
            return None
        return str(row[0]) if row else None

    def _write(self) -> None:
        rows, self._new = self._new, []
        if self._database is None or not rows:
            return
        try:
            with self._database:
                self._database.executemany(_WRITE, rows)
        except sqlite3.Error as error:
            self._recover(error)

    def _recover(self, error: sqlite3.Error) -> None:
        """Rebuild a broken file; do without one that is busy or cannot be written."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
        self._database = _rebuilt(self._path) if _is_broken(error) else None


def _state(fs: fsspec.AbstractFileSystem, path: str) -> tuple[str, bool]:
    """What changes with a file's bytes ("" if nothing does), and whether its last step is over."""
    if isinstance(fs, LocalFileSystem):
        now = time.time_ns()
        # fsspec's own times are floats, too coarse for nanoseconds; a Path doubles the cost
        found = os.stat(path)  # noqa: PTH116
        state = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
        return state, now - max(found.st_mtime_ns, found.st_ctime_ns) >= RACY_NS
    info = fs.info(path)
    tag = info.get("ETag") or info.get("etag") or info.get("e_tag")
    if not tag or str(tag).startswith("W/"):  # a weak tag may stay while bytes change
        return "", False
    return f"{info['size']} {tag}", True


def _opened(path: Path) -> sqlite3.Connection | None:
    """The database; None if it cannot be used."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connected(path)
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, sqlite3.Error) and _is_broken(error):
            return _rebuilt(path)
        _report_unused(path, error)
        return None


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S)
    try:
        database.execute("PRAGMA journal_mode = WAL")  # readers and a writer do not block another
        database.execute("PRAGMA synchronous = NORMAL")
        with database:
            database.execute(_TABLE)
        database.execute(_FIND, ("", "")).fetchone()
    except BaseException:
        database.close()
        raise
    return database


def _rebuilt(path: Path) -> sqlite3.Connection | None:
    """An empty database in place of a broken one, unless another process has rebuilt it."""
    try:
        with FileLock(path.with_suffix(".lock"), timeout=BUSY_S):
            with suppress(sqlite3.Error):
                database = _connected(path)
                if database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                    return database
                database.close()
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            log("file digests rebuilt", path=str(path))
            return _connected(path)
    except (OSError, Timeout, sqlite3.Error) as error:
        _report_unused(path, error)
        return None


def _report_unused(path: Path, error: Exception) -> None:
    log("file digests not used", path=str(path), error=str(error))


def _is_broken(error: sqlite3.Error) -> bool:
    # an error that the driver raises has no code: it could not decode what a cell holds
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _BROKEN
