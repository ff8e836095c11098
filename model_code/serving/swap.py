"""Change the serving version without losing a request: one transaction over folders and server.

Two versions of one configuration lie side by side in the model, so a swap is: lay the new one
beside the old, load, golden request, turn the route. A version that needs another configuration
(another backend, other threads), or whose neighbour's bytes were changed, cannot share the model:
it is first loaded under a bridge's name straight from its bytes, the route is turned to the bridge,
the model is rebuilt, and the route is turned back. At every instant the route names a version that
has answered its golden request.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from model_code.errors import ServingError, TicklineError
from model_code.repository.manifest import Manifest
from model_code.repository.requests import GOLDEN_FILE, GoldenSet
from model_code.repository.route import Route, Target
from model_code.repository.serving import Journal, ServingRepository
from model_code.serving.candidate import load_under
from model_code.serving.client import TritonClient
from model_code.serving.golden import prove, revive
from model_code.settings import MODEL_NAME

BRIDGE_NAMES = (f"{MODEL_NAME}_bridge", f"{MODEL_NAME}_bridge_2")
DRAIN_S = 0.25  # clients look at the route every 0.02 s; what is in flight ends in Triton itself


class Registry(Protocol):
    """Where the names `champion` and `previous` live."""

    def aliases(self) -> tuple[int | None, int | None]:
        """Versions named champion and previous."""
        ...

    def move(self, champion: int | None, previous: int | None) -> None:
        """Name them anew; None removes a name."""
        ...


class Swap:
    """The transaction; every step may be repeated, and undone.

    Args:
        repository: the caller holds its lock.
        client: of the live server.
        registry: of the aliases.
    """

    def __init__(
        self, repository: ServingRepository, client: TritonClient, registry: Registry
    ) -> None:
        self.repository, self.client, self.registry = repository, client, registry

    def run(self, kind: str, version: int, previous: int | None, flow_run_id: str) -> bool:
        """Make a version the champion: load, golden request, route, aliases. All or nothing.

        Args:
            kind: promote or rollback.
            version: published in the repository.
            previous: the alias afterwards.
            flow_run_id: whose change this is.

        Returns:
            False where the version was the champion already, and answers.

        Raises:
            IntegrityError: its bytes are not those of its manifest; nothing was loaded.
            ServingError: it does not load, or does not answer its golden requests.
            TicklineError: any other fault; what served before serves again.
        """
        Manifest.load(self.repository.folder(version))
        journal = self.repository.journal()
        if journal is not None and (journal.kind, journal.version) != (kind, version):
            self.undo(journal)
            journal = None
        champion, before = self.registry.aliases()
        # a canary that was killed may have left the candidate a share
        only = Route(champion=Target(model=MODEL_NAME, version=version))
        serving = self.repository.route() == only
        if journal is None and champion == version and serving:
            self._prove(MODEL_NAME, version)
            return False
        if journal is None:
            journal = Journal(
                kind=kind,
                version=version,
                route=Route(champion=self.repository.route().champion),
                versions=self.repository.versions(),
                champion=champion,
                previous=before,
                flow_run_id=flow_run_id,
            )
            self.repository.open_journal(journal)
        try:
            self._switch(self._neighbours(journal, version), version)
            self.registry.move(version, previous)
        except Exception as error:
            self._restore(journal, error)
            raise
        self.repository.close_journal()
        return True

    def reconcile(self) -> Journal | None:
        """Undo what an earlier process began and did not end; return what that was."""
        journal = self.repository.journal()
        if journal is not None:
            self.undo(journal)
        return journal

    def undo(self, journal: Journal) -> None:
        """Put back what served before: folders, route, names; proved by its golden request."""
        old = journal.route.champion
        if old is None:
            self._turn(None)
            self.client.unload(MODEL_NAME)
            self.repository.arrange(())
        else:
            self._switch(journal.versions, old.version)
        # last: clients must be answered even where the registry is what fails
        if self.registry.aliases() != (journal.champion, journal.previous):
            self.registry.move(journal.champion, journal.previous)
        self.repository.close_journal()

    def _restore(self, journal: Journal, cause: Exception) -> None:
        try:
            self.undo(journal)
        except Exception as error:
            # the server or the registry is gone: leave the disk so that a restart serves the old
            # version, and the journal so that the next change begins by proving it
            cause.add_note(f"what served before is not proved again: {error}")
            with self._noted(cause):
                self._turn(journal.route.champion)
            with self._noted(cause):
                self.repository.arrange(journal.versions)

    @staticmethod
    @contextmanager
    def _noted(cause: Exception) -> Iterator[None]:
        """A second fault is told beside the first, never in its place."""
        try:
            yield
        except Exception as error:
            cause.add_note(f"nor put back on disk: {error}")

    def _neighbours(self, journal: Journal, version: int) -> tuple[int, ...]:
        """Versions to keep loaded; none above the champion.

        Triton hands the highest to every client that names no version.
        """
        old = journal.route.champion
        below = old is not None and old.version < version
        if old is None or not below or not self.repository.same_config(old.version, version):
            return (version,)
        return (old.version, version)

    def _switch(self, versions: tuple[int, ...], version: int) -> None:
        """Serve `version` from a model that holds `versions`, the old one until it answers."""
        now = self.repository.route().champion
        # a load reads every folder again: one whose bytes were changed must not lie there
        versions = tuple(one for one in versions if one == version or self._sound(one))
        fits = now is None or (
            self._sound(now.version) and self.repository.same_config(now.version, version)
        )
        if fits and (now is None or now.model == MODEL_NAME):
            both = {version} if now is None else {version, now.version}
            if self.repository.versions() != tuple(sorted(both | set(versions))):
                self.repository.arrange(sorted(both))
            self._load(version)
            self._turn(Target(model=MODEL_NAME, version=version))
            if self.repository.versions() != versions:
                time.sleep(DRAIN_S)
                self.repository.arrange(versions)
                self._load(version)
            self._clear_bridges()  # one may be left from a change that died
            return
        # after a crash the route may be on a bridge; what it names must not be replaced under it
        bridge = next(name for name in BRIDGE_NAMES if now is None or name != now.model)
        load_under(self.client, bridge, self.repository.folder(version))
        self._prove(bridge, version)
        self._turn(Target(model=bridge, version=version))
        time.sleep(DRAIN_S)
        self.repository.arrange(versions)
        self._load(version)
        self._turn(Target(model=MODEL_NAME, version=version))
        time.sleep(DRAIN_S)
        self._clear_bridges()

    def _sound(self, version: int) -> bool:
        try:
            Manifest.load(self.repository.folder(version))
        except TicklineError:
            return False
        return True

    def _clear_bridges(self) -> None:
        for name in filter(self.client.ready, BRIDGE_NAMES):
            self.client.unload(name)

    def _load(self, version: int) -> None:
        Manifest.load(self.repository.folder(version))  # the bytes that Triton is about to read
        self.client.load(MODEL_NAME)
        self._prove(MODEL_NAME, version)

    def _prove(self, model: str, version: int) -> None:
        folder = self.repository.folder(version)
        golden = GoldenSet.load(folder / GOLDEN_FILE)
        try:
            prove(self.client, golden, model, version)
        except ServingError:
            now = self.repository.route().champion
            others = now is not None and now.version != version and now.model == model
            if model != MODEL_NAME or (others and self._answers(now)):
                raise  # the version is bad; what serves must not be disturbed
            revive(self.client, model)  # nothing serves: a dead process is cured by unload and load
            prove(self.client, golden, model, version)

    def _answers(self, target: Target | None) -> bool:
        try:
            if target is not None:
                golden = GoldenSet.load(self.repository.folder(target.version) / GOLDEN_FILE)
                prove(self.client, golden, target.model, target.version)
        except ServingError:
            return False
        return target is not None

    def _turn(self, champion: Target | None) -> None:
        Route(champion=champion).save(self.repository.route_file)
