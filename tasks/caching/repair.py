"""Forget an artefact whose bytes are not those recorded, so that its stage computes it again."""

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


def broken_artefact(settings: Settings, message: str) -> Path | None:
    """The stored artefact that an `IntegrityError`'s text names, if its bytes are wrong or gone."""
    for text in WHERE.findall(message):
        path = Path(text.strip())
        if not path.is_relative_to(settings.artifacts):
            continue
        sha256 = path.parent.name
        if not path.exists() or hash_path(path) != sha256:
            return path
    return None


def forget(settings: Settings, artefact: Path) -> int:
    """Remove a broken artefact and every cached result that points to it; how many there were.

    The stages that made it run again; their inputs are stored still, and so are the results of
    stages after them, which hold again as soon as the same bytes are back.
    """
    results = list(_pointing_to(settings, str(artefact)))
    for result in results:
        result.unlink()
    if artefact.is_dir():
        shutil.rmtree(artefact)
    else:
        artefact.unlink(missing_ok=True)
    return len(results)


def drop_unusable_result(key: str) -> None:
    """Remove a stage's result that was cut short, or that is too old for a run that refreshes.

    A full disk or a kill can cut it short: Prefect writes it in place, and would take what is there
    for a result that it cannot read.
    """
    path = Path(PREFECT_LOCAL_STORAGE_PATH.value()) / key
    try:
        json.loads(path.read_bytes())
    except OSError:
        return  # there is none
    except ValueError:
        path.unlink(missing_ok=True)
    if is_stale(path):
        path.unlink(missing_ok=True)


def _pointing_to(settings: Settings, path: str) -> Iterator[Path]:
    # a result is JSON within JSON, so the path stands there with its slashes escaped or not
    needles = {path.encode(), json.dumps(path)[1:-1].encode()}
    for result in (settings.home / "results").iterdir():
        if result.is_file() and any(needle in result.read_bytes() for needle in needles):
            yield result
