"""The serving repository: what Triton reads, and beside it what must survive a crash.

    <root>/financial_predictor/config.pbtxt
    <root>/financial_predictor/<version>/        at most two: the champion and its neighbour
    <root>-state/archive/<version>/              every other version that ever served
    <root>-state/journal.json                    the change under way, absent between changes
    <root>-state/route.json                      which version clients ask

`version_policy latest 2` serves the two highest folders. A version that must not serve is therefore
moved to the archive, never left to outrank one that must. A folder, once there, is only ever moved
by a rename, never rewritten.
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
from model_code.repository.manifest import CONFIG_FILE, MANIFEST_FILE, Approval, Manifest
from model_code.repository.route import Route
from model_code.settings import MODEL_NAME


class RepositoryBusyError(PromotionError):
    """Another promotion or rollback is at work; what was approved may go on after it."""


class Journal(BaseModel):
    """What a change of the serving version intends and what there was before it.

    Attributes:
        kind: promote or rollback.
        version: to serve.
        route: before the change.
        versions: folders in the repository before the change.
        champion: alias before the change; None if there was none.
        previous: alias before the change; None if there was none.
        flow_run_id: who does it.
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
    """Folders, route and journal; nothing here talks to a server.

    Args:
        root: what Triton was given as its model repository.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / MODEL_NAME
        self.state = root.with_name(f"{root.name}-state")
        self.archive = self.state / "archive"
        self.route_file = self.state / "route.json"
        self.journal_file = self.state / "journal.json"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the repository's lock; the system frees it however the process dies.

        Raises:
            RepositoryBusyError: another promotion or rollback holds it.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        holder = self.state / "promotion.pid"
        lock = FileLock(self.state / "promotion.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            pid = holder.read_text().strip() if holder.exists() else "unknown"
            raise RepositoryBusyError(
                f"another promotion or rollback is at work (process {pid})",
                where=str(self.root),
                remedy="wait for it to end (tickline audit shows it), then run the same command",
            ) from error
        try:
            holder.write_text(str(os.getpid()))
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def versions(self) -> tuple[int, ...]:
        """Versions that Triton sees, ascending."""
        return _versions(self.home)

    def known(self) -> tuple[int, ...]:
        """Every version that ever served, ascending."""
        return tuple(sorted({*_versions(self.home), *_versions(self.archive)}))

    def folder(self, version: int) -> Path:
        """Where a version lies now.

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
        """Which version clients ask now."""
        return Route.load(self.route_file)

    def publish(self, candidate: Path, approval: Approval) -> None:
        """Copy a staged version here, with who approved it, by one rename; into the archive.

        The same version with the same bytes again changes nothing; other bytes are refused.

        Raises:
            IntegrityError: the candidate's bytes are not those of its manifest, or the version is
                here with others.
            StorageError: the disk is full; nothing is left behind.
        """
        manifest = Manifest.load(candidate)
        if manifest.version in self.known():
            here = Manifest.load(self.folder(manifest.version))
            if here.identity != manifest.identity:
                raise IntegrityError(
                    f"version {manifest.version} has served already with other bytes",
                    where=str(self.folder(manifest.version)),
                    remedy="register a new version; a served one is never overwritten",
                )
            return
        with atomic_folder(self.archive / str(manifest.version)) as folder:
            shutil.copytree(candidate, folder, dirs_exist_ok=True)
            approved = manifest.model_copy(update={"approval": approval})
            (folder / MANIFEST_FILE).write_bytes(approved.text())
            for path in folder.iterdir():
                _sync(path)
            approved.prove(folder)  # what is renamed is what was approved

    def withdraw(self, version: int) -> None:
        """Remove a version that was published and never served."""
        gone = self.archive / f".{version}.withdrawn"
        (self.archive / str(version)).rename(gone)
        shutil.rmtree(gone)

    def arrange(self, versions: Sequence[int]) -> None:
        """Let Triton see exactly these versions, all of one configuration; by renames.

        Raises:
            IntegrityError: their configurations differ, so that one model cannot hold them.
            StorageError: a folder cannot be moved.
        """
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
                for left in self.home.glob(f".{CONFIG_FILE}.*.tmp"):  # by a process that was killed
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
        """Write down what is about to be done."""
        with atomic_file(self.journal_file) as path:
            path.write_text(journal.model_dump_json(indent=2) + "\n")

    def journal(self) -> Journal | None:
        """The change that was begun and not ended; None between changes.

        Raises:
            IntegrityError: the file is no journal.
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
                remedy="move it away, then tickline rollback --to the version that is to serve",
            ) from error

    def close_journal(self) -> None:
        """The change is complete, or undone."""
        self.journal_file.unlink(missing_ok=True)


def _versions(home: Path) -> tuple[int, ...]:
    if not home.is_dir():
        return ()
    names = [path.name for path in home.iterdir() if (path / MANIFEST_FILE).is_file()]
    return tuple(sorted(int(name) for name in names if name.isascii() and name.isdigit()))


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
