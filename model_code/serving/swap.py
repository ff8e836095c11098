"""Change the serving version without losing a request: one transaction over folders and server.

Two versions of one configuration share the model. A swap adds the new version beside the old one,
loads it, sends its golden requests and switches the route. A version with another configuration
(another backend, other threads), or beside a version whose bytes were changed, cannot share the
model. It is first loaded from its bytes under a bridge name. The route is switched to the bridge,
the model is rebuilt, and the route is switched back. At every moment the route names a version that
answered its golden requests correctly.

With several servers each step is done on all of them, and the route is switched once a quorum has
the version. Undoing needs one of them: an unreachable server must not keep a bad version serving.

An emergency rollback takes over from a change in progress: it replaces its journal instead of
undoing it, and the fence of the repository stops the other process at its next step.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from model_code.errors import PromotionError, ServingError, TicklineError
from model_code.repository.fence import EMERGENCY, FencedError, complete
from model_code.repository.manifest import Manifest
from model_code.repository.route import Route, Target
from model_code.repository.serving import Journal, ServingRepository
from model_code.serving.candidate import load_under
from model_code.serving.client import TritonClient
from model_code.serving.golden import prove, reload
from model_code.serving.servers import Server, Servers, golden_of
from model_code.settings import MODEL_NAME

BRIDGE_NAMES = (f"{MODEL_NAME}_bridge", f"{MODEL_NAME}_bridge_2")
DRAIN_S = 0.25  # clients check the route every 0.02 s; Triton finishes requests in flight


class Registry(Protocol):
    """The registry of the aliases `champion` and `previous`."""

    def aliases(self) -> tuple[int | None, int | None]:
        """Versions with the aliases champion and previous."""
        ...

    def move(self, champion: int | None, previous: int | None) -> None:
        """Set both aliases; None removes one."""
        ...


class Swap:
    """The transaction; every step can be repeated and undone.

    Args:
        repository: the caller holds its lock.
        servers: the live server's client, or several servers and their quorum.
        registry: of the aliases.
    """

    def __init__(
        self, repository: ServingRepository, servers: TritonClient | Servers, registry: Registry
    ) -> None:
        if isinstance(servers, TritonClient):
            servers = Servers([Server("", servers, repository)])
        self.repository, self.servers, self.registry = repository, servers, registry

    def run(self, kind: str, version: int, previous: int | None, flow_run_id: str) -> bool:
        """Make a version the champion: load, golden requests, route, aliases. All or nothing.

        Args:
            kind: promote, rollback or emergency.
            version: published in the repository.
            previous: the alias afterwards.
            flow_run_id: flow run that makes the change.

        Returns:
            False if the version already was the champion and works.

        Raises:
            IntegrityError: its bytes differ from its manifest; nothing was loaded.
            ServingError: it does not load, or fails its golden requests.
            QuorumError: of several servers too few have it.
            PromotionError: an emergency rollback was interrupted; only it can be completed.
            FencedError: an emergency rollback took over; nothing is undone.
            TicklineError: any other fault. After every fault the previous version is restored.
        """
        self.repository.fence.require()
        Manifest.load(self.repository.folder(version))
        journal = self.repository.journal()
        replaced = journal is not None and (journal.kind, journal.version) != (kind, version)
        if journal is not None and replaced:
            if kind != EMERGENCY:
                self._require_no_emergency(journal)
                self.undo(journal)
                replaced = False
            journal = None
        alias, before = self.registry.aliases()
        now = self.repository.route().champion
        champion = None if now is None else now.version  # whatever somebody set the alias to
        # a killed canary may have left a share for the candidate
        only = Route(champion=Target(model=MODEL_NAME, version=version))
        serving = self.repository.route() == only
        if journal is None and not replaced and champion == version and serving:
            self.servers.each(
                lambda server: self._verify(server, MODEL_NAME, version), self.servers.quorum
            )
            if alias != version:  # somebody set it by hand
                self.registry.move(version, before)
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
            quorum = self.servers.quorum if kind == "promote" else 1
            self._switch(self._loaded_versions(journal, version), version, quorum)
            self.repository.fence.require()
            self.registry.move(version, previous)
        except FencedError:
            raise
        except Exception as error:
            self.repository.fence.require()  # the emergency has restored what serves
            self._restore(journal, error)
            raise
        self.repository.close_journal()
        return True

    def reconcile(self) -> Journal | None:
        """Undo a change that an earlier process did not finish; return its journal."""
        journal = self.repository.journal()
        if journal is not None:
            self._require_no_emergency(journal)
            self.undo(journal)
        return journal

    def undo(self, journal: Journal) -> None:
        """Restore the previous version: folders, route, aliases; verified by golden requests."""
        old = journal.route.champion
        self.servers.behind.clear()
        if old is None:
            self._set_route(None)
            self.repository.fence.require()
            self.servers.each(lambda server: server.client.unload(MODEL_NAME), 1)
            self.repository.arrange(())
            self.servers.mirror(self.repository, None, 1)
        else:
            self._switch(journal.versions, old.version, 1)
        # last, so that clients are served even if the registry fails
        if self.registry.aliases() != (journal.champion, journal.previous):
            self.registry.move(journal.champion, journal.previous)
        self.repository.close_journal()

    def _require_no_emergency(self, journal: Journal) -> None:
        """Refuse to undo an emergency rollback: it would bring the bad version back."""
        if journal.kind == EMERGENCY:
            raise PromotionError(
                f"an emergency rollback to version {journal.version} was interrupted",
                where=str(self.repository.journal_file),
                remedy=complete(journal.version),
            )

    def _restore(self, journal: Journal, cause: Exception) -> None:
        try:
            self.undo(journal)
        except FencedError:
            raise
        except Exception as error:
            # the server or the registry is unreachable: leave the disk so that a restart serves
            # the old version, and the journal so that the next change first restores it
            cause.add_note(f"the previous version was not verified again: {error}")
            with self._noted(cause):
                self._set_route(journal.route.champion)
            with self._noted(cause):
                self.repository.arrange(journal.versions)
                self.servers.mirror(self.repository, None, 1)

    @staticmethod
    @contextmanager
    def _noted(cause: Exception) -> Iterator[None]:
        """Add a second error to the first as a note, so that it does not hide it."""
        try:
            yield
        except Exception as error:
            cause.add_note(f"the previous version was not restored on disk: {error}")

    def _loaded_versions(self, journal: Journal, version: int) -> tuple[int, ...]:
        """Versions to keep loaded; none above the champion.

        Triton serves the highest version to every client that names no version.
        """
        old = journal.route.champion
        below = old is not None and old.version < version
        if old is None or not below or not self.repository.same_config(old.version, version):
            return (version,)
        return (old.version, version)

    def _switch(self, versions: tuple[int, ...], version: int, quorum: int) -> None:
        """Serve `version` from a model with `versions`; until it works the old one serves."""
        now = self.repository.route().champion
        # a load reads every folder again, so a version whose bytes were changed must not be there
        versions = tuple(one for one in versions if one == version or self._intact(one))
        fits = now is None or (
            self._intact(now.version) and self.repository.same_config(now.version, version)
        )
        if fits and (now is None or now.model == MODEL_NAME):
            both = {version} if now is None else {version, now.version}
            if self.repository.versions() != tuple(sorted(both | set(versions))):
                self.repository.arrange(sorted(both))
            self._load(version, quorum)
            self._set_route(Target(model=MODEL_NAME, version=version))
            if self.repository.versions() != versions:
                time.sleep(DRAIN_S)
                self.repository.arrange(versions)
                self._load(version, 1)
            self._clear_bridges()  # a killed change may have left one
            return
        # after a crash the route may name a bridge, which must not be replaced while it serves
        bridge = next(name for name in BRIDGE_NAMES if now is None or name != now.model)
        self.servers.each(lambda server: self._load_bridge(server, bridge, version), quorum)
        self._set_route(Target(model=bridge, version=version))
        time.sleep(DRAIN_S)
        self.repository.arrange(versions)
        self._load(version, quorum)
        self._set_route(Target(model=MODEL_NAME, version=version))
        time.sleep(DRAIN_S)
        self._clear_bridges()

    def _intact(self, version: int) -> bool:
        try:
            Manifest.load(self.repository.folder(version))
        except TicklineError:
            return False
        return True

    def _clear_bridges(self) -> None:
        self.servers.each(clear_bridges, 1)

    def _load_bridge(self, server: Server, bridge: str, version: int) -> None:
        self.repository.fence.require()
        load_under(server.client, bridge, self.repository.folder(version))
        self._verify(server, bridge, version)

    def _load(self, version: int, quorum: int) -> None:
        self.servers.mirror(self.repository, version, quorum)

        def load(server: Server) -> None:
            self.repository.fence.require()
            Manifest.load(server.repository.folder(version))  # the bytes that Triton will read
            server.client.load(MODEL_NAME)
            self._verify(server, MODEL_NAME, version)

        self.servers.each(load, quorum)

    def _verify(self, server: Server, model: str, version: int) -> None:
        golden = golden_of(self.repository, version)
        try:
            prove(server.client, golden, model, version)
        except ServingError:
            now = self.repository.route().champion
            others = now is not None and now.version != version and now.model == model
            if model != MODEL_NAME or (others and self._works(server, now)):
                raise  # the version is bad; the serving version must not be disturbed
            self.repository.fence.require()
            reload(server.client, model)  # nothing serves: unload and load replace a dead process
            prove(server.client, golden, model, version)

    def _works(self, server: Server, target: Target | None) -> bool:
        try:
            if target is not None:
                golden = golden_of(self.repository, target.version)
                prove(server.client, golden, target.model, target.version)
        except ServingError:
            return False
        return target is not None

    def _set_route(self, champion: Target | None) -> None:
        self.repository.turn(Route(champion=champion))
        self.servers.copy_route(self.repository)


def clear_bridges(server: Server) -> None:
    """Unload what a change loaded under a bridge name."""
    for name in filter(server.client.ready, BRIDGE_NAMES):
        server.client.unload(name)
