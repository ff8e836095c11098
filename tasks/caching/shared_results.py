"""Results of stages follow to the shared store, so that another host finds them.

Before a stage runs, its result is fetched if it is not here. When it has ended, its result is
copied, after the artefacts that it names. What a killed process did not copy is copied when its
stage is next asked for here; until then another host computes the stage itself.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH
from pydantic import ValidationError

from model_code.artifacts import ArtifactRef
from model_code.settings import Settings
from model_code.storage.objects import Objects
from model_code.storage.shared import artifact_store, shared_objects

RESULTS = "results"  # prefix in the shared store


def result_file(key: str) -> Path:
    """Where Prefect keeps a result in this home."""
    return Path(PREFECT_LOCAL_STORAGE_PATH.value()) / key


def references(result: Any) -> Iterator[ArtifactRef]:
    """The artefacts that a result names."""
    if isinstance(result, list):
        for item in result:
            yield from references(item)
    if not isinstance(result, dict):
        return
    try:
        yield ArtifactRef.model_validate(result)
    except ValidationError:
        for item in result.values():
            yield from references(item)


def settle(settings: Settings, key: str) -> None:
    """Fetch a result that is only in the shared store, or copy one that is only here.

    Raises:
        SharedStoreError: the shared store did not answer.
    """
    objects, path = shared_objects(settings), result_file(key)
    if objects is None:
        return
    if not path.exists():
        objects.download(f"{RESULTS}/{key}", path)
    elif not objects.has(f"{RESULTS}/{key}"):
        _copy(settings, objects, path)


def drop_result(settings: Settings, path: Path) -> None:
    """Delete a result, here and in the shared store.

    Raises:
        SharedStoreError: the shared store did not answer.
    """
    path.unlink(missing_ok=True)
    objects = shared_objects(settings)
    if objects is not None:
        objects.delete(f"{RESULTS}/{path.name}")


def share_result(_: Task[..., Any], __: TaskRun, state: State[Any]) -> None:
    """Copy a new result to the shared store: a hook of finished tasks."""
    settings = Settings().resolved()
    objects = shared_objects(settings)
    # a finished run's own state has the record, one read from the server its metadata
    key = getattr(getattr(state.data, "metadata", state.data), "storage_key", None)
    if objects is None or key is None or state.name == "Cached":
        return
    path = result_file(Path(key).name)
    if path.exists():
        _copy(settings, objects, path)


def _copy(settings: Settings, objects: Objects, path: Path) -> None:
    store = artifact_store(settings)
    try:
        result = json.loads(json.loads(path.read_bytes()).get("result", "null"))
    except (ValueError, TypeError, AttributeError):
        return  # truncated: the stage is computed again
    for ref in references(result):
        if store.path(ref).exists():
            store.share(ref)
    objects.write(f"{RESULTS}/{path.name}", path.read_bytes())
