"""The servers of a change of the serving version: its targets, in parallel, and their quorum.

A target that fails is left behind, and the change goes on as long as a quorum is level. A single
server has no quorum: its errors are raised as they are.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from model_code.errors import PromotionError, TicklineError
from model_code.repository.copies import copy_route, mirror
from model_code.repository.requests import GOLDEN_FILE, GoldenSet
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient

_READING = threading.Lock()


class QuorumError(PromotionError):
    """Too few targets have the version."""


@dataclass(frozen=True)
class Server:
    """A target.

    Attributes:
        name: as in the settings; empty for a single server.
        client: of its control address.
        repository: that it reads; targets that read the same folder share the object.
    """

    name: str
    client: TritonClient
    repository: ServingRepository


class Servers:
    """The targets of one change.

    Args:
        servers: at least one.
        quorum: how many must be level.

    Attributes:
        behind: why a target was left behind, by name.
    """

    def __init__(self, servers: Sequence[Server], quorum: int = 1) -> None:
        self.all, self.quorum = tuple(servers), quorum
        self.behind: dict[str, str] = {}

    @property
    def level(self) -> tuple[Server, ...]:
        """Targets that were not left behind."""
        return tuple(server for server in self.all if server.name not in self.behind)

    def each(self, act: Callable[[Server], object], quorum: int) -> None:
        """Act on every target that is level, in parallel.

        Raises:
            QuorumError: fewer than `quorum` are level afterwards; names each other one and why.
            TicklineError: of a single server, as it is.
        """
        if len(self.all) == 1:
            act(self.all[0])
            return
        self._leave(_together(act, self.level))
        self._require(quorum)

    def mirror(self, source: ServingRepository, needed: int | None, quorum: int) -> None:
        """Give targets with a copy of their own the original's versions, also those left behind.

        A server that is away then finds them when it starts.

        Raises:
            QuorumError: as `each`.
        """
        first = {one.repository.root: one for one in self._with_copy(self.all, source)}
        failed = _together(lambda one: mirror(source, one.repository, needed), first.values())
        roots = {first_one.repository.root: why for first_one, why in failed}
        self._leave(
            (server, roots[server.repository.root])
            for server in self.all
            if server.repository.root in roots
        )
        self._require(quorum)

    def copy_route(self, source: ServingRepository) -> None:
        """Give every copy the route, also those left behind: their clients ask another target.

        A copy that cannot be written keeps its route until `tickline reconcile`.
        """
        for server in self._with_copy(self.all, source):
            try:
                copy_route(source, server.repository)
            except TicklineError as error:
                self.behind.setdefault(server.name, reason(error))

    def withdraw(self, version: int, source: ServingRepository) -> None:
        """Remove a version that never served from the archives of the copies."""
        for server in self._with_copy(self.all, source):
            if (server.repository.archive / str(version)).is_dir():
                server.repository.withdraw(version)

    @staticmethod
    def _with_copy(servers: Iterable[Server], source: ServingRepository) -> list[Server]:
        return [server for server in servers if server.repository.root != source.root]

    def _leave(self, failed: Iterable[tuple[Server, Exception]]) -> None:
        for server, error in failed:
            self.behind.setdefault(server.name, reason(error))

    def _require(self, quorum: int) -> None:
        count, level = len(self.all), len(self.level)
        if level < quorum:
            raise QuorumError(
                f"{level} of {count} targets are ready, the quorum is {quorum}: "
                + "; ".join(f"{name}: {why}" for name, why in sorted(self.behind.items())),
                where=", ".join(f"{one.name} {one.client.url}" for one in self.all),
                remedy="the route was not turned; repair the targets, then run the same command",
            )


def golden_of(repository: ServingRepository, version: int) -> GoldenSet:
    """A version's golden requests; safe between threads.

    numpy parses a file's header with `ast`, which fails now and then when two threads of Python
    3.11 do so at once ("AST constructor recursion depth mismatch").
    """
    with _READING:
        return GoldenSet.load(repository.folder(version) / GOLDEN_FILE)


def reason(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, TicklineError):
        return f"{error.what} ({error.where})" if error.where else error.what
    return f"{type(error).__name__}: {error}"


def _together(
    act: Callable[[Server], object], servers: Iterable[Server]
) -> list[tuple[Server, Exception]]:
    """Act in parallel; return the servers that failed, each with its error."""
    chosen = list(servers)
    if not chosen:
        return []
    with ThreadPoolExecutor(len(chosen)) as pool:
        futures = [pool.submit(act, server) for server in chosen]
    failed = []
    for server, future in zip(chosen, futures, strict=True):
        error = future.exception()
        if isinstance(error, Exception):
            failed.append((server, error))
        elif error is not None:
            raise error
    return failed
