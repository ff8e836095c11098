"""The serving repository: the folders that Triton reads, and state that must survive a crash.

    <root>/financial_predictor/config.pbtxt
    <root>/financial_predictor/<version>/        at most two: the champion and one other
    <root>-state/archive/<version>/              every other version that ever served
    <root>-state/journal.json                    the change in progress, absent otherwise
    <root>-state/route.json                      which version clients use
    <root>-state/emergencies/                    emergency rollbacks, which fence off other changes
    <root>-state/owners/                         who runs which promotion

`version_policy latest 2` serves the two highest folders. A version that must not serve is therefore
moved to the archive, where it cannot outrank the champion. An existing folder is only moved by a
rename, never rewritten.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from model_code.artifacts import atomic_file, atomic_folder, storage_error
from model_code.errors import IntegrityError, PromotionError
from model_code.repository.fence import Fence
from model_code.repository.manifest import CONFIG_FILE, MANIFEST_FILE, Approval, Manifest
from model_code.repository.route import Route
from model_code.settings import MODEL_NAME


class RepositoryBusyError(PromotionError):
    """Another promotion or rollback is running; an approved change can resume after it."""


class Journal(BaseModel):
    """A change of the serving version: its goal, and the state before it.

    Attributes:
        kind: promote, rollback or emergency.
        version: to serve.
        route: before the change.
        versions: folders in the repository before the change.
        champion: version that served before the change, its alias; None if there was none.
        previous: alias before the change; None if there was none.
        flow_run_id: flow run that makes the change.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    kind: str
    version: int
    route: Route
    versions: tuple[int, ...]
    champion: int | None
    previous: int | None
    flow_run_id: str


class ServingRepository:
    """Folders, route and journal; does not access the server.

    Args:
        root: Triton's model repository.
        epoch: number of the newest emergency rollback when the change began: every write is refused
            after a newer one. None: none is refused.
    """

    def __init__(self, root: Path, epoch: int | None = None) -> None:
        self.root = root
        self.home = root / MODEL_NAME
        self.state = root.with_name(f"{root.name}-state")
        self.archive = self.state / "archive"
        self.route_file = self.state / "route.json"
        self.journal_file = self.state / "journal.json"
        self.fence = Fence(self.state, epoch)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the repository's lock; the system releases it if the process dies.

        Raises:
            RepositoryBusyError: another promotion or rollback holds it.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        pid_file = self.state / "promotion.pid"
        lock = FileLock(self.state / "promotion.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            pid = pid_file.read_text().strip() if pid_file.exists() else "unknown"
            remedy = "wait for it to end (tickline audit shows it), then run the same command"
            if self.fence.not_level():
                remedy = "an emergency rollback took over from it, so it ends by itself; if it "
                remedy += f"hangs: kill -9 {pid}. Then run the same command"
            raise RepositoryBusyError(
                f"another promotion or rollback is running (pid {pid})",
                where=str(self.root),
                remedy=remedy,
            ) from error
        try:
            pid_file.write_text(str(os.getpid()))
            yield
        finally:
            pid_file.unlink(missing_ok=True)
            lock.release()

    def versions(self) -> tuple[int, ...]:
        """Versions in Triton's model repository, ascending."""
        return _versions(self.home)

    def known(self) -> tuple[int, ...]:
        """Every version that ever served, ascending."""
        return tuple(sorted({*_versions(self.home), *_versions(self.archive)}))

    def folder(self, version: int) -> Path:
        """Folder of a version, in the repository or in the archive.

        Raises:
            PromotionError: it never served.
        """
        for home in (self.home, self.archive):
            if version in _versions(home):
                return home / str(version)
        raise PromotionError(
            f"version {version} was never promoted",
            where=str(self.root),
            remedy=f"choose one of {', '.join(map(str, self.known())) or 'none yet'}, "
            f"or promote it: tickline promote --version {version}",
        )

    def route(self) -> Route:
        """The current route."""
        return Route.load(self.route_file)

    def turn(self, route: Route) -> None:
        """Write the route, by one rename.

        Raises:
            FencedError: an emergency rollback took over.
            StorageError: it cannot be written.
        """
        with self.fence.writing():
            route.save(self.route_file)

    def publish(self, candidate: Path, approval: Approval) -> None:
        """Copy a staged version and its approval into the archive, by one rename.

        Publishing the same bytes again changes nothing. Other bytes under the same version are
        refused.

        Raises:
            IntegrityError: the candidate's bytes differ from its manifest, or the version exists
                with other bytes.
            FencedError: an emergency rollback took over.
            StorageError: the disk is full; nothing is left behind.
        """
        self.fence.require()
        manifest = Manifest.load(candidate)
        if manifest.version in self.known():
            here = Manifest.load(self.folder(manifest.version))
            if here.identity != manifest.identity:
                raise IntegrityError(
                    f"version {manifest.version} has already served with other bytes",
                    where=str(self.folder(manifest.version)),
                    remedy="register a new version; a served one is never overwritten",
                )
            return
        with atomic_folder(self.archive / str(manifest.version)) as folder:
            shutil.copytree(candidate, folder, dirs_exist_ok=True)
            approved = manifest.model_copy(update={"approval": approval})
            (folder / MANIFEST_FILE).write_bytes(approved.text())
            for path in folder.iterdir():
                sync_file(path)
            approved.verify(folder)  # the copy, before the rename

    def withdraw(self, version: int) -> None:
        """Remove a version that was published and never served."""
        withdrawn = self.archive / f".{version}.withdrawn"
        with self.fence.writing():
            (self.archive / str(version)).rename(withdrawn)
        shutil.rmtree(withdrawn)

    def arrange(self, versions: Sequence[int]) -> None:
        """Move folders by renames, so that Triton's repository has exactly these versions.

        Raises:
            IntegrityError: their configurations differ, so they cannot share one model.
            FencedError: an emergency rollback took over.
            StorageError: a folder cannot be moved.
        """
        with self.fence.writing():
            self._arrange(versions)

    def _arrange(self, versions: Sequence[int]) -> None:
        folders = {version: self.folder(version) for version in versions}
        configs = {(folder / CONFIG_FILE).read_bytes() for folder in folders.values()}
        if len(configs) > 1:
            raise IntegrityError(
                f"versions {', '.join(map(str, versions))} need different configurations",
                where=str(self.home),
            )
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self.archive.mkdir(parents=True, exist_ok=True)
            for version in set(self.versions()) - set(versions):
                (self.home / str(version)).rename(self.archive / str(version))
            if not versions:  # a model without versions cannot be loaded
                (self.home / CONFIG_FILE).unlink(missing_ok=True)
                for left in self.home.glob(f".{CONFIG_FILE}.*.tmp"):  # of a killed process
                    left.unlink()
                self.home.rmdir()
            for config in configs:
                if _read(self.home / CONFIG_FILE) != config:
                    with atomic_file(self.home / CONFIG_FILE) as path:
                        path.write_bytes(config)
            for version, folder in folders.items():
                if folder.parent != self.home:
                    folder.rename(self.home / str(version))
        except OSError as error:
            raise storage_error(error, self.home) from error

    def same_config(self, one: int, other: int) -> bool:
        """Whether two versions can be served side by side under one model name."""
        texts = [(self.folder(version) / CONFIG_FILE).read_bytes() for version in (one, other)]
        return texts[0] == texts[1]

    def open_journal(self, journal: Journal) -> None:
        """Record the change before it starts.

        Raises:
            FencedError: an emergency rollback took over.
            StorageError: it cannot be written.
        """
        with self.fence.writing(), atomic_file(self.journal_file) as path:
            path.write_text(journal.model_dump_json(indent=2) + "\n")

    def journal(self) -> Journal | None:
        """The unfinished change; None if there is none.

        Raises:
            IntegrityError: the file is malformed.
        """
        text = _read(self.journal_file)
        if text is None:
            return None
        try:
            return Journal.model_validate_json(text)
        except ValidationError as error:
            raise IntegrityError(
                "the journal of an unfinished change is malformed",
                where=str(self.journal_file),
                remedy="move it away, then: tickline rollback --to the version that should serve",
            ) from error

    def close_journal(self) -> None:
        """Delete the journal: the change is complete or undone.

        Raises:
            FencedError: an emergency rollback took over.
        """
        with self.fence.writing():
            self.journal_file.unlink(missing_ok=True)


def _versions(home: Path) -> tuple[int, ...]:
    if not home.is_dir():
        return ()
    names = [path.name for path in home.iterdir() if (path / MANIFEST_FILE).is_file()]
    return tuple(sorted(int(name) for name in names if name.isascii() and name.isdigit()))


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
