"""Drop an artefact whose bytes do not match its hash, so that its stage computes it again."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

from model_code.artifacts import hash_path
from model_code.settings import Settings
from tasks.caching.refresh import is_stale

WHERE = re.compile(r"^\s*where:\s*(.+)$", re.MULTILINE)


def damaged_artefact(settings: Settings, message: str) -> Path | None:
    """Return the artefact named in an `IntegrityError`'s text if it is damaged or missing."""
    for text in WHERE.findall(message):
        path = Path(text.strip())
        if not path.is_relative_to(settings.artifacts):
            continue
        sha256 = path.parent.name
        if not path.exists() or hash_path(path) != sha256:
            return path
    return None


def drop_artefact(settings: Settings, artefact: Path) -> int:
    """Delete a damaged artefact and every cached result that refers to it; return how many.

    The stages that made it run again: their inputs are still stored. Results of later stages are
    valid again as soon as the same bytes are back.
    """
    results = list(_referring_to(settings, str(artefact)))
    for result in results:
        result.unlink()
    if artefact.is_dir():
        shutil.rmtree(artefact)
    else:
        artefact.unlink(missing_ok=True)
    return len(results)


def drop_unusable_result(key: str) -> None:
    """Delete a stage's result that is truncated, or too old for a refreshing run.

    A full disk or a kill can truncate it, because Prefect writes in place. Prefect would then find
    a result that it cannot read.
    """
    path = Path(PREFECT_LOCAL_STORAGE_PATH.value()) / key
    try:
        json.loads(path.read_bytes())
    except OSError:
        return  # no result yet
    except ValueError:
        path.unlink(missing_ok=True)
    if is_stale(path):
        path.unlink(missing_ok=True)


def _referring_to(settings: Settings, path: str) -> Iterator[Path]:
    # a result is JSON within JSON: the path appears plain or escaped
    needles = {path.encode(), json.dumps(path)[1:-1].encode()}
    for result in (settings.home / "results").iterdir():
        if result.is_file() and any(needle in result.read_bytes() for needle in needles):
            yield result
