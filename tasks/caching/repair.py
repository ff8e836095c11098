"""Drop an artefact whose bytes do not match its hash, so that its stage computes it again."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_LOCAL_STORAGE_PATH
from pydantic import ValidationError

from model_code.artifacts import ArtifactRef, ArtifactStore, hash_path
from model_code.settings import Settings
from tasks.caching.refresh import is_stale

WHERE = re.compile(r"^\s*where:\s*(.+)$", re.MULTILINE)
STORED = re.compile(r"/artifacts/[0-9a-f]{2}/([0-9a-f]{64})/([^/]+)$")


def damaged_artefact(settings: Settings, message: str) -> Path | None:
    """Return the artefact named in an `IntegrityError`'s text if it is damaged or missing.

    The home may have moved since: what counts is the artefact's hash and name.
    """
    for text in WHERE.findall(message):
        named = STORED.search(text.strip())
        if named is None:
            continue
        sha256, name = named.groups()
        path = ArtifactStore(settings.artifacts).path(ArtifactRef(name=name, sha256=sha256))
        if not path.exists() or hash_path(path) != sha256:
            return path
    return None


def drop_artefact(settings: Settings, artefact: Path) -> int:
    """Delete a damaged artefact and every cached result that refers to it; return how many.

    The stages that made it run again: their inputs are still stored. Results of later stages are
    valid again as soon as the same bytes are back.
    """
    results = list(_referring_to(settings, artefact.parent.name))
    for result in results:
        result.unlink()
    if artefact.is_dir():
        shutil.rmtree(artefact)
    else:
        artefact.unlink(missing_ok=True)
    return len(results)


def drop_results_of_version(settings: Settings, version: int) -> None:
    """Delete the results that registered and staged a version; a night then makes another."""
    named = re.compile(rb'version\\*"\s*:\s*\\*"%d\\*"' % version)  # JSON within JSON
    for stage in ("register", "stage-candidate"):
        for result in (settings.home / "results").glob(f"{stage}-*"):
            if named.search(result.read_bytes()):
                result.unlink(missing_ok=True)


def drop_unusable_result(settings: Settings, key: str) -> None:
    """Delete a stage's result that is truncated, without its files, or too old for this run.

    A full disk or a kill can truncate it, because Prefect writes in place. Prefect would then find
    a result that it cannot read. A home that was copied in part may lack an artefact or a staged
    version that a result names.
    """
    path = Path(PREFECT_LOCAL_STORAGE_PATH.value()) / key
    try:
        result = json.loads(json.loads(path.read_bytes()).get("result", "null"))
    except OSError:
        return  # no result yet
    except (ValueError, TypeError, AttributeError):
        path.unlink(missing_ok=True)
        return
    if is_stale(path) or not all(found.exists() for found in _files(settings, result)):
        path.unlink(missing_ok=True)


def _files(settings: Settings, result: Any) -> Iterator[Path]:
    """What the result's artefacts and staged versions are stored in."""
    if isinstance(result, list):
        for item in result:
            yield from _files(settings, item)
    if not isinstance(result, dict):
        return
    try:
        yield ArtifactStore(settings.artifacts).path(ArtifactRef.model_validate(result))
    except ValidationError:
        for item in result.values():
            yield from _files(settings, item)
    if str(result.get("__class__", "")).endswith(".Staged"):
        yield settings.located(result["data"]["path"])


def _referring_to(settings: Settings, sha256: str) -> Iterator[Path]:
    needle = sha256.encode()
    for result in (settings.home / "results").iterdir():
        if result.is_file() and needle in result.read_bytes():
            yield result
