"""What the hosts of an installation share, by the settings."""

from pathlib import Path

from model_code.artifacts import ArtifactStore
from model_code.settings import Settings
from model_code.storage.objects import Objects

CHECKPOINTS = "checkpoints"  # prefixes
STAGING = "staging"


def shared_objects(settings: Settings, wait_s: float | None = None) -> Objects | None:
    """The shared store; None: this home shares nothing.

    Args:
        settings: of this home.
        wait_s: as `Objects`.

    Raises:
        ConfigError: as `Objects`.
    """
    return Objects(settings.store, wait_s) if settings.store else None


def artifact_store(settings: Settings) -> ArtifactStore:
    """The artefacts of this home, in front of the shared ones."""
    return ArtifactStore(settings.artifacts, shared_objects(settings), int(settings.store_cache))


class FolderCopy:
    """A flat folder of files that are written once, and its copy in the shared store.

    Args:
        objects: the shared store; None: there is no copy, and nothing is done.
        prefix: of the copy.
        folder: here.
    """

    def __init__(self, objects: Objects | None, prefix: str, folder: Path) -> None:
        self._objects, self._prefix, self.folder = objects, prefix, folder

    def pull(self) -> None:
        """Fetch the files that are not here.

        Raises:
            SharedStoreError: the shared store did not answer.
        """
        if self._objects is not None:
            for name in self._names() - _files(self.folder):
                self._objects.download(f"{self._prefix}/{name}", self.folder / name)

    def push(self) -> None:
        """Copy new files to the shared store, then delete there what is not here any more.

        Raises:
            SharedStoreError: the shared store did not answer.
        """
        if self._objects is not None:
            here, there = _files(self.folder), self._names()
            for name in sorted(here - there):
                self._objects.upload(self.folder / name, f"{self._prefix}/{name}")
            for name in there - here:
                self._objects.delete(f"{self._prefix}/{name}")

    def _names(self) -> set[str]:
        assert self._objects is not None  # noqa: S101
        return {key.rpartition("/")[2] for key in self._objects.keys(self._prefix)}


def _files(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
