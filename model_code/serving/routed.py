"""The client that follows the route: requests go to the champion, a share to the candidate.

If the candidate fails, the request is sent to the champion; half of the deadline is reserved for
that. If the champion is gone, it was swapped after the route was read, and the request is sent to
the new champion.

While the route shares requests, the client writes down their outcomes beside the route file for the
canary's judge. A request that nobody answers is no outcome: the network may be the cause.

With several servers a target is asked at each of them before another target is. A bridge or a
candidate may be at one of them only.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model_code.comparison.outcomes import outcomes_of
from model_code.errors import ServingError
from model_code.repository.route import Route, Router, Target
from model_code.serving import refusals
from model_code.serving.aio import DEADLINE_S, AsyncTritonClient
from model_code.serving.outcome_log import OutcomeLog
from model_code.serving.owner import Owner
from model_code.serving.wire import LateError, check_windows, shown
from model_code.settings import MODEL_NAME

WindowsOf = Callable[[Target], NDArray[np.float32]]

SHORTEST_S = 1e-6  # asked of a target once the deadline is over
TURNS = 4  # other targets tried before giving up


@dataclass(frozen=True)
class Routed:
    """A response and its target.

    Attributes:
        logits_BC: float32.
        target: that responded.
        failed: targets that failed before, each with the reason.
        late: those of them that did not answer in time.
    """

    logits_BC: NDArray[np.float32]
    target: Target
    failed: tuple[tuple[Target, str], ...] = ()
    late: frozenset[Target] = frozenset()


class RoutedClient:
    """Asynchronous predictions along the route; use one client per event loop.

    Args:
        url: gRPC host:port of the server; several in the order of preference.
        route_file: of the serving repository.
        refresh_s: maximum age of the cached route, in seconds.
        attempts: maximum per target; 1: a request is never sent to it again.
        outcomes: whether a canary may judge these requests; False: they are its own, or the caller
            writes them down.

    Raises:
        ServingError: a bad address or number of attempts, or a forked process.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        route_file: Path,
        refresh_s: float = 0.02,
        *,
        attempts: int = 2,
        outcomes: bool = True,
    ) -> None:
        self._url, self._router = url, Router(route_file, refresh_s)
        self._log = OutcomeLog(route_file) if outcomes else None
        self._owner = Owner(shown(url))
        self._attempts = refusals.attempts(attempts)
        self._clients: dict[str, AsyncTritonClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not (self._owner.is_elsewhere or self._owner.has_ended):
            self._owner.require_loop(asyncio.get_running_loop())
            if self._log is not None:
                await self._log.close()
        self._owner.closed = True
        await asyncio.gather(*(client.close() for client in self._clients.values()))

    @property
    def route(self) -> Route:
        """The route, at most `refresh_s` old."""
        return self._router.route()

    @property
    def failovers(self) -> int:
        """Requests that one server failed and the next one got."""
        return sum(client.failovers for client in self._clients.values())

    @property
    def unwritten(self) -> str | None:
        """Why a canary cannot judge this client's requests; None: it can."""
        return None if self._log is None else self._log.error

    def refresh(self) -> None:
        """Read the route file now, regardless of the cached route's age."""
        self._router.route(now=True)

    async def ask(
        self, x_BTF: NDArray[np.float32] | WindowsOf, deadline_s: float = DEADLINE_S
    ) -> Routed:
        """Logits (B, 2) of raw feature windows (B, 64, 16) float32, within the deadline.

        Versions may see different features. While the route shares requests between such versions,
        pass a function that returns the windows of a target.

        Raises:
            PromotionError: no version serves yet.
            ServingError: bad windows, a bad deadline, a client that is closed or of another process
                or event loop, or no target responded in time.
        """
        self._owner.require(asyncio.get_running_loop())
        begun = time.perf_counter()
        end = asyncio.get_running_loop().time() + refusals.seconds(deadline_s)
        failed: list[tuple[Target, str]] = []
        refused: set[Target] = set()
        late: set[Target] = set()
        target = self._router.pick()
        while True:
            left = end - asyncio.get_running_loop().time()
            if target == self._router.route().candidate:
                left /= 2
            own_BTF: NDArray[np.float32] | None = None
            try:
                own_BTF = x_BTF(target) if callable(x_BTF) else x_BTF
                logits_BC = await self.ask_of(target, own_BTF, max(left, SHORTEST_S))
            except ServingError as error:
                failed.append((target, error.what))
                late |= {target} if isinstance(error, LateError) else set()
                refused |= {target} if _is_refused(own_BTF) else set()
                if len(failed) > TURNS or asyncio.get_running_loop().time() >= end:
                    raise
                target = self._other(target)
            else:
                routed = Routed(logits_BC, target, tuple(failed), frozenset(late))
                self._note(routed, refused, 1e3 * (time.perf_counter() - begun))
                return routed

    def _note(self, routed: Routed, refused: set[Target], ms: float) -> None:
        """Write the outcome down if a canary is active."""
        route = self._router.route()
        if self._log is None or route.candidate is None or not route.shared():
            return
        failed = [one for one in routed.failed if one[0] not in refused]
        self._log.add(outcomes_of(route.candidate, routed.target, failed, routed.late, ms))

    async def ask_of(
        self, target: Target, x_BTF: NDArray[np.float32], deadline_s: float = DEADLINE_S
    ) -> NDArray[np.float32]:
        """Send the request to one target only.

        Raises:
            ServingError: as `AsyncTritonClient.ask`.
        """
        self._owner.require(asyncio.get_running_loop())
        client = self._clients.get(target.model)
        if client is None:
            client = AsyncTritonClient(self._url, model=target.model, attempts=self._attempts)
            self._clients[target.model] = client
        answer = await client.ask(x_BTF, version=target.version, deadline_s=deadline_s)
        return answer.logits_BC

    def _other(self, failed: Target) -> Target:
        champion = self._router.route(now=True).champion
        if champion is not None and champion != failed:
            return champion
        # a bridge is lost if the server restarts; the model then has the same version
        return Target(model=MODEL_NAME, version=failed.version)


def _is_refused(x_BTF: NDArray[np.float32] | None) -> bool:
    """Whether the caller's windows are the reason of a failure: the target was not asked."""
    try:
        check_windows(x_BTF)
    except ServingError:
        return True
    return False
