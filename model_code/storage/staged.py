"""Staged versions in the shared store: the host that promotes need not be the one that trained."""

from pathlib import Path

from model_code.artifacts import atomic_file
from model_code.repository.manifest import CONFIG_FILE, MANIFEST_FILE
from model_code.repository.staging import staged_versions
from model_code.settings import MODEL_NAME, Settings
from model_code.storage.shared import STAGING, shared_objects


def share_staged(settings: Settings, version: int) -> None:
    """Copy a staged version to the shared store, unless it has it.

    Raises:
        SharedStoreError: the shared store did not answer.
    """
    objects = shared_objects(settings)
    if objects is not None and not objects.has(f"{STAGING}/{version}"):
        folder = settings.staging_repository / MODEL_NAME / str(version)
        objects.upload(folder, f"{STAGING}/{version}")


def fetch_staged(settings: Settings, version: int, folder: Path | None = None) -> bool:
    """Copy a version from the shared store unless it is here; False: it is in neither.

    Args:
        settings: of this home.
        version: to fetch.
        folder: of the version; None: in the staging repository.

    Raises:
        SharedStoreError: the shared store did not answer.
    """
    root = settings.staging_repository
    folder = folder or root / MODEL_NAME / str(version)
    if folder.exists():
        return True
    objects = shared_objects(settings)
    if objects is None or not objects.download(f"{STAGING}/{version}", folder):
        return False
    # the upper configuration is that of the highest version
    if version == max(staged_versions(root), default=version) and (folder / CONFIG_FILE).exists():
        with atomic_file(folder.parent / CONFIG_FILE) as config:
            config.write_bytes((folder / CONFIG_FILE).read_bytes())
    return True


def fetch_all_staged(settings: Settings) -> list[int]:
    """Fetch every version that is only in the shared store; return all, ascending.

    Raises:
        SharedStoreError: the shared store did not answer.
    """
    objects = shared_objects(settings)
    keys = [] if objects is None else objects.keys(STAGING)
    for version in {key.split("/")[1] for key in keys if key.endswith(f"/{MANIFEST_FILE}")}:
        fetch_staged(settings, int(version))
    return staged_versions(settings.staging_repository)


def drop_staged(settings: Settings, version: int) -> None:
    """Delete a version from the shared store; the folder here stays.

    Raises:
        SharedStoreError: the shared store did not answer.
    """
    objects = shared_objects(settings)
    if objects is not None:
        objects.delete(f"{STAGING}/{version}")
