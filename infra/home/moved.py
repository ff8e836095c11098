"""A home folder that moved: whose its records of processes are, and MLflow's locations in it.

MLflow's database holds absolute locations of artefacts. In a home that was renamed or copied they
would name the folder it came from, and the next run would write there.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

from model_code.errors import StorageError
from model_code.settings import Settings

BUSY_S = 60.0
# MLflow's columns that hold a location
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def identity(settings: Settings) -> str:
    """Identity of the home folder on this machine: a rename keeps it, a copy has another."""
    found = settings.home.stat()
    return f"{found.st_dev}:{found.st_ino}"


def is_own(settings: Settings, home: str) -> bool:
    """Whether a record of a process belongs to this home, not to the one it was copied from.

    Args:
        settings: of the home folder.
        home: its `identity` when the record was written; empty in records of earlier Ticklines.
    """
    return home in ("", identity(settings))


def relocate(settings: Settings) -> bool:
    """Let MLflow's database under the home name this folder, if it came from another one.

    Locations outside of the former home stay. A database that cannot be written stays too: then
    nothing can be logged either.

    Returns:
        Whether anything was changed.

    Raises:
        StorageError: it cannot be changed.
    """
    path = settings.home / "mlflow.db"
    if settings.mlflow_tracking_uri is not None or not path.is_file():
        return False
    try:
        with closing(_opened(path, "ro")) as database:
            if not list(_former(database, settings)):
                return False
    except sqlite3.Error:
        return False  # not MLflow's yet, or damaged: MLflow says what is wrong
    try:
        with closing(_opened(path, "rw")) as database:
            database.execute("BEGIN IMMEDIATE")  # another process may have done it meanwhile
            with database:
                for former in list(_former(database, settings)):
                    _rewrite(database, former, settings.mlflow_artifacts.as_uri() + "/")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
            return False
        raise StorageError(
            f"the home folder moved, and MLflow's database cannot be told so: {error}",
            where=str(path),
            remedy="stop what uses it (tickline down) and free space (df -h), "
            "then run the same command again",
        ) from error
    return True


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)


def _former(database: sqlite3.Connection, settings: Settings) -> Iterator[str]:
    """Folders, as URIs, under which another home created this one's experiments."""
    own = settings.mlflow_artifacts
    for name, location in database.execute("SELECT name, artifact_location FROM experiments"):
        home, folder, rest = str(location).rpartition(f"/{own.name}/")
        if not home.startswith("file:///") or home + folder == own.as_uri() + "/":
            continue
        # an experiment may have been renamed, and a person may have put one elsewhere
        if unquote(rest) == name or (own / unquote(rest)).exists():
            yield home + folder


def _rewrite(database: sqlite3.Connection, former: str, present: str) -> None:
    for table, column in LOCATIONS:
        database.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608  names above
            f"WHERE substr({column}, 1, ?) = ?",
            (present, len(former) + 1, len(former), former),
        )
