"""Retention in the shared store: which of its objects nothing needs any more.

The rules are those of a home: `model_code.monitoring.retention`. Runs and versions are those of all
hosts, because all ask one Prefect and one MLflow.
"""

import datetime as dt
from collections.abc import Iterable
from itertools import groupby
from pathlib import PurePosixPath

from model_code.monitoring.retention import GRACE, SHA256, Item, Needed
from model_code.storage.objects import Entry, Objects

REPOSITORIES = ("staging", "serving")  # read for references, never swept


def plan(objects: Objects, needed: Needed, *, now: dt.datetime) -> list[Item]:
    """Every shared artefact, result and checkpoint, with the reason to keep it.

    An item's path is its key.

    Args:
        objects: the shared store.
        needed: what runs and the registry need.
        now: with a time zone.

    Raises:
        SharedStoreError: the store did not answer.
    """
    young, hashes = now - GRACE, dict(needed.hashes)
    for prefix in REPOSITORIES:
        for key in objects.keys(prefix):
            if key.endswith(".json"):
                hashes |= dict.fromkeys(_hashes(objects, key), f"shared {prefix}")
    items = []
    for entry in objects.entries("results"):
        reason = needed.results.get(PurePosixPath(entry.key).name) or _young([entry], young)
        if reason:
            named = (name for name in _hashes(objects, entry.key) if name not in hashes)
            hashes |= dict.fromkeys(named, reason)
        items.append(_item("shared result", entry.key, [entry], reason))
    for (_, sha256), entries in _grouped(objects.entries("artifacts"), 3):
        reason = hashes.get(sha256) or _young(entries, young)
        key = f"artifacts/{sha256[:2]}/{sha256}"
        items.append(_item("shared artefact", key, entries, reason))
    since = min(young, needed.open_since) if needed.open_since else young
    why = "a run that may be resumed" if needed.open_since else "younger than a day"
    for (name,), entries in _grouped(objects.entries("checkpoints"), 2):
        kept = why if _newest(entries) >= since else None
        items.append(_item("shared checkpoint", f"checkpoints/{name}", entries, kept))
    return items


def delete(objects: Objects, items: Iterable[Item]) -> int:
    """Delete the items that are not needed, results before the artefacts they name.

    Returns:
        Bytes freed.

    Raises:
        SharedStoreError: the store did not answer; what is left is still consistent.
    """
    freed = 0
    for item in sorted(items, key=lambda item: item.kind != "shared result"):
        if item.needed is None:
            objects.delete(item.path.as_posix())
            freed += item.size
    return freed


def _grouped(entries: list[Entry], depth: int) -> list[tuple[tuple[str, ...], list[Entry]]]:
    """Entries of each folder at that depth; the names below the prefix, and what is in it."""
    parts = groupby(entries, lambda entry: tuple(entry.key.split("/")[1:depth]))
    return [(names, list(found)) for names, found in parts]


def _item(kind: str, key: str, entries: list[Entry], needed: str | None) -> Item:
    size = sum(entry.size for entry in entries)
    return Item(kind=kind, path=PurePosixPath(key), size=size, needed=needed)


def _newest(entries: list[Entry]) -> dt.datetime:
    return max(entry.modified for entry in entries)


def _young(entries: list[Entry], since: dt.datetime) -> str | None:
    return "younger than a day" if _newest(entries) >= since else None


def _hashes(objects: Objects, key: str) -> set[str]:
    return {found.decode() for found in SHA256.findall(objects.read(key) or b"")}
