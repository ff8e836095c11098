"""Compare the targets with the route, and bring those that are behind level with it."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from model_code.errors import PromotionError, ServingError, TicklineError
from model_code.repository.copies import copy_route, mirror
from model_code.repository.fence import EMERGENCY, complete
from model_code.repository.manifest import Manifest
from model_code.repository.route import Target
from model_code.repository.serving import ServingRepository
from model_code.serving.candidate import CANDIDATE_NAME
from model_code.serving.golden import prove, reload, revive
from model_code.serving.servers import Server, Servers, golden_of, reason
from model_code.serving.swap import BRIDGE_NAMES
from model_code.settings import MODEL_NAME


@dataclass(frozen=True)
class Level:
    """One target, compared with the route.

    Attributes:
        target: name.
        has: versions that it served before; None if it did not answer.
        wanted: versions that it should serve, the champion and the one before it.
        action: what was done; empty if nothing was.
        problem: why it is behind; empty if it is level.
        answers: whether the champion answers rightly, or nothing is promoted.
    """

    target: str
    has: tuple[int, ...] | None
    wanted: tuple[int, ...]
    action: str
    problem: str
    answers: bool

    @property
    def level(self) -> bool:
        """Whether it serves what it should, and answers rightly."""
        return not self.problem


def compare(source: ServingRepository, servers: Servers) -> tuple[Level, ...]:
    """Compare every target with the route, and change nothing."""
    champion, wanted = source.route().champion, source.versions()

    def look(server: Server) -> Level:
        has: tuple[int, ...] | None = None
        answers = False
        try:
            has = tuple(server.client.versions(MODEL_NAME))
            if champion is not None:
                _prove(server, source, champion)
            answers = True
            if champion is not None:
                for other in _neighbours(set(has) & set(wanted), champion):
                    _prove(server, source, other)
        except TicklineError as error:
            return Level(_name(server), has, wanted, "", reason(error), answers)
        lacks = _text(sorted(set(wanted) - set(has))) if set(wanted) - set(has) else ""
        return Level(_name(server), has, wanted, "", lacks and f"lacks {lacks}", answers)

    return _all(look, servers)


def reconcile(source: ServingRepository, servers: Servers) -> tuple[Level, ...]:
    """Bring every target level with the route: copy, load, verify, unload what is not routed.

    The caller holds the repository's lock. A target that is level is verified and left alone.

    Raises:
        PromotionError: a change was interrupted; it must be completed or undone first.
        IntegrityError: the champion's bytes differ from its manifest.
    """
    journal = source.journal()
    if journal is not None:
        kinds = {"promote": "a promotion of", EMERGENCY: "an emergency rollback to"}
        raise PromotionError(
            f"{kinds.get(journal.kind, 'a rollback to')} version {journal.version} was interrupted",
            where=str(source.journal_file),
            remedy=complete(journal.version)
            if journal.kind == EMERGENCY
            else "complete it with the same command, or undo it: tickline rollback",
        )
    champion = source.route().champion
    if champion is not None:
        Manifest.load(source.folder(champion.version))
    copies: dict[str, TicklineError] = {}
    for server in servers.all:  # one after another: several may read the same copy
        root = server.repository.root
        if root != source.root and str(root) not in copies:
            try:
                mirror(source, server.repository, None if champion is None else champion.version)
                copy_route(source, server.repository)
            except TicklineError as error:
                copies[str(root)] = error
    return _all(lambda server: _bring_level(server, source, champion, copies), servers)


def _bring_level(
    server: Server,
    source: ServingRepository,
    champion: Target | None,
    copies: dict[str, TicklineError],
) -> Level:
    wanted = source.versions()
    has: tuple[int, ...] | None = None
    done: list[str] = []
    answers = False
    try:
        has = tuple(server.client.versions(MODEL_NAME))
        if (broken := copies.get(str(server.repository.root))) is not None:
            raise broken
        wanted = server.repository.versions()  # a copy leaves a damaged neighbour out
        if champion is None:
            if has:
                server.client.unload(MODEL_NAME)
                done.append("unloaded the model")
        elif has != wanted or not _answers(server, source, champion):
            server.client.load(MODEL_NAME, wanted)
            done.append(f"loaded {_text(wanted)}")
            if not _answers(server, source, champion):
                reload(server.client)  # its process may be dead, or have loaded other bytes
                _prove(server, source, champion)
        answers = True
        if champion is not None:
            for other in _neighbours(wanted, champion):
                if not _answers(server, source, other):
                    revive(server.client, server.repository.folder(other.version))
                    done.append(f"loaded {other.version} again")
                    _prove(server, source, other)
        for name in filter(server.client.ready, (CANDIDATE_NAME, *BRIDGE_NAMES)):
            server.client.unload(name)
            done.append(f"unloaded {name}")
    except TicklineError as error:
        return Level(_name(server), has, wanted, ", ".join(done), reason(error), answers)
    return Level(_name(server), has, wanted, ", ".join(done), "", answers)


def _neighbours(versions: Iterable[int], champion: Target) -> list[Target]:
    """The other versions of the champion's model, which a rollback would need."""
    return [Target(model=MODEL_NAME, version=one) for one in versions if one != champion.version]


def _answers(server: Server, source: ServingRepository, target: Target) -> bool:
    try:
        _prove(server, source, target)
    except ServingError:
        return False
    return True


def _prove(server: Server, source: ServingRepository, target: Target) -> None:
    prove(server.client, golden_of(source, target.version), MODEL_NAME, target.version)


def _all(act: Callable[[Server], Level], servers: Servers) -> tuple[Level, ...]:
    with ThreadPoolExecutor(len(servers.all)) as pool:
        return tuple(pool.map(act, servers.all))


def _text(versions: list[int] | tuple[int, ...]) -> str:
    return ", ".join(map(str, versions)) or "nothing"


def _name(server: Server) -> str:
    return server.name or server.client.url
