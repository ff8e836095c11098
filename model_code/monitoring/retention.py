"""Retention: which files of a home folder are no longer needed and may be deleted.

Mark and sweep over the content-addressed store. Marked are the artefacts that the kept stage
results or the model repositories' manifests name, and everything recent. Nothing is inferred from
file names.
"""

import datetime as dt
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from pydantic import BaseModel, ConfigDict

from model_code.errors import StorageError

SHA256 = re.compile(rb"\b[0-9a-f]{64}\b")
GRACE = dt.timedelta(days=1)  # newer files may belong to a running stage


class Folders(BaseModel):
    """The folders to examine; each may be missing.

    Attributes:
        repositories: model repositories, staging or serving; read for references, never swept.
        expiring: folders of versions in them that expire; not read.
    """

    model_config = ConfigDict(frozen=True)

    artifacts: Path
    results: Path
    checkpoints: Path
    logs: Path
    repositories: tuple[Path, ...] = ()
    expiring: frozenset[Path] = frozenset()


class Needed(BaseModel):
    """What is still needed, and why.

    Attributes:
        results: file name of a stage's result -> reason.
        hashes: sha256 of an artefact -> reason.
        open_since: start of the oldest run that may be resumed; its checkpoints are younger.
    """

    model_config = ConfigDict(frozen=True)

    results: dict[str, str] = {}
    hashes: dict[str, str] = {}
    open_since: dt.datetime | None = None


class Item(BaseModel):
    """One file or folder that is kept or deleted as a whole.

    Attributes:
        needed: why it is needed; None if it is not.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    path: PurePath
    size: int
    needed: str | None


def plan(
    folders: Folders, needed: Needed, *, now: dt.datetime, keep_logs: dt.timedelta
) -> list[Item]:
    """Every artefact, result, checkpoint, log and left-over, with the reason to keep it.

    Args:
        folders: the folders to examine.
        needed: what runs and the registry need.
        now: with a time zone.
        keep_logs: older logs are not needed.
    """
    young = now - GRACE
    items: list[Item] = []
    hashes = dict(needed.hashes)
    for root in folders.repositories:
        for path in root.rglob("*.json"):
            if path.parent in folders.expiring:
                continue
            hashes |= dict.fromkeys(_hashes(path), f"repository {root.name}")
    for path in _children(folders.results):
        reason = needed.results.get(path.name) or _young(path, young)
        if reason:
            # the artefacts that a kept result names are kept too: a rerun reads them back
            hashes |= {name: reason for name in _hashes(path) if name not in hashes}
        items.append(_item("result", path, reason))
    for path in _children(folders.artifacts):
        if path.name.startswith("."):
            items.append(_item("left-over", path, _young(path, young)))
            continue
        items += [
            _item("artefact", home, hashes.get(home.name) or _young(home, young))
            for home in _children(path)
        ]
    since = min(young, needed.open_since) if needed.open_since else young
    for path in _children(folders.checkpoints):
        reason = "a run that may be resumed" if needed.open_since else "younger than a day"
        items.append(_item("checkpoint", path, reason if _touched(path) >= since else None))
    return items + [
        _item("log", path, _young(path, now - keep_logs, "recent"))
        for path in _children(folders.logs)
    ]


def delete(items: Iterable[Item]) -> int:
    """Delete the items that are not needed, results before the artefacts they name.

    Returns:
        Bytes freed.

    Raises:
        StorageError: an item cannot be deleted; the remaining files are still consistent.
    """
    order = {"result": 0}
    freed = 0
    for item in sorted(items, key=lambda item: order.get(item.kind, 1)):
        if item.needed:
            continue
        path = Path(item.path)
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot delete {item.path.name}: {error.strerror or error}",
                where=str(item.path),
                remedy="fix its permissions (ls -ld), then run tickline gc --apply again",
            ) from error
        freed += item.size
    return freed


def _children(root: Path) -> list[Path]:
    return sorted(root.iterdir()) if root.is_dir() else []


def size_of(path: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    return sum(found.lstat().st_size for found in _files(path))


def _item(kind: str, path: Path, needed: str | None) -> Item:
    return Item(kind=kind, path=path, size=size_of(path), needed=needed)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        yield from (found for found in path.rglob("*") if found.is_symlink() or found.is_file())
    else:
        yield path


def _touched(path: Path) -> dt.datetime:
    newest = max([path.lstat().st_mtime, *(found.lstat().st_mtime for found in _files(path))])
    return dt.datetime.fromtimestamp(newest, dt.UTC)


def _young(path: Path, since: dt.datetime, reason: str = "younger than a day") -> str | None:
    return reason if _touched(path) >= since else None


def _hashes(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {found.decode() for found in SHA256.findall(path.read_bytes())}
