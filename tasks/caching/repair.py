"""Drop an artefact whose bytes do not match its hash, so that its stage computes it again."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_code.artifacts import ArtifactRef, hash_path
from model_code.settings import Settings
from model_code.storage.shared import artifact_store
from model_code.storage.staged import fetch_staged
from tasks.caching.refresh import is_stale
from tasks.caching.shared_results import drop_result, references, result_file

WHERE = re.compile(r"^\s*where:\s*(.+)$", re.MULTILINE)
STORED = re.compile(r"/artifacts/[0-9a-f]{2}/([0-9a-f]{64})/([^/]+)$")


def damaged_artefact(settings: Settings, message: str) -> ArtifactRef | None:
    """Return the artefact named in an `IntegrityError`'s text if it is damaged or missing.

    The home may have moved since: what counts is the artefact's hash and name.
    """
    for text in WHERE.findall(message):
        named = STORED.search(text.strip())
        if named is None:
            continue
        sha256, name = named.groups()
        ref = ArtifactRef.of(name, sha256)
        path = artifact_store(settings).path(ref)
        if not path.exists() or hash_path(path) != sha256:
            return ref
    return None


def drop_artefact(settings: Settings, artefact: ArtifactRef) -> int:
    """Delete a damaged artefact and every cached result that refers to it; return how many.

    The stages that made it run again: their inputs are still stored. Results of later stages are
    valid again as soon as the same bytes are back.

    Raises:
        SharedStoreError: the shared store did not answer.
    """
    results = list(_referring_to(settings, artefact.sha256))
    for result in results:
        drop_result(settings, result)
    artifact_store(settings).drop(artefact)
    return len(results)


def drop_results_of_version(settings: Settings, version: int) -> None:
    """Delete the results that registered and staged a version; a night then makes another."""
    named = re.compile(rb'version\\*"\s*:\s*\\*"%d\\*"' % version)  # JSON within JSON
    for stage in ("register", "stage-candidate"):
        for result in (settings.home / "results").glob(f"{stage}-*"):
            if named.search(result.read_bytes()):
                drop_result(settings, result)


def drop_unusable_result(settings: Settings, key: str) -> None:
    """Delete a stage's result that is truncated, without its files, or too old for this run.

    A full disk or a kill can truncate it, because Prefect writes in place. Prefect would then find
    a result that it cannot read. A home that was copied in part may lack an artefact or a staged
    version that a result names.
    """
    path = result_file(key)
    if not path.exists():
        return  # no result yet
    try:
        result = json.loads(json.loads(path.read_bytes()).get("result", "null"))
    except (ValueError, TypeError, AttributeError):
        drop_result(settings, path)
        return
    store = artifact_store(settings)
    complete = all(store.has(ref) for ref in references(result)) and _is_staged(settings, result)
    if is_stale(path) or not complete:
        drop_result(settings, path)


def _is_staged(settings: Settings, result: Any) -> bool:
    """Whether the version that a result names, if it names one, lies in the staging repository."""
    if not (isinstance(result, dict) and str(result.get("__class__", "")).endswith(".Staged")):
        return True
    staged = result["data"]
    return fetch_staged(settings, int(staged["version"]), settings.located(staged["path"]))


def _referring_to(settings: Settings, sha256: str) -> Iterator[Path]:
    needle = sha256.encode()
    for result in (settings.home / "results").iterdir():
        if result.is_file() and needle in result.read_bytes():
            yield result
