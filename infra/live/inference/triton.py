"""Triton as the service's model: along the route, with a deadline, a hedge and a fallback.

Every request follows the route, so that a canary's share and a swap apply at once. A server that
does not answer in time is away: decisions come from the other server or from the engine in this
process, and a task in the background probes the server until it answers.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from infra.live.inference.canary_outcomes import CanaryOutcomes
from infra.live.inference.champion import Champion
from infra.live.inference.endpoint import Endpoint
from infra.live.inference.versions import Versions
from infra.live.model import Answered, FeaturesChangedError
from infra.live.spec import TritonSpec
from model_code.errors import ServingError, TicklineError
from model_code.models.probability import probability
from model_code.serving.routed import Routed
from model_code.serving.wire import check_windows, shown


class Triton:
    """The model of `Service`; use it as a context in the service's event loop.

    Args:
        url: gRPC host:port of the server; several targets in the order of preference.
        versions: of the repository.
        spec: deadline, hedge, probes, fallback.
        say: called with each line for the log.

    Attributes:
        counts: requests by what became of them: `triton`, `fallback`, `failed`, `hedged`,
            `hedge won`, `other features`.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        versions: Versions,
        spec: TritonSpec,
        say: Callable[[str], None],
    ) -> None:
        self._urls = [url] if spec.hedge_to is None else [url, spec.hedge_to]
        self._versions, self._spec, self._say = versions, spec, say
        self._fallback = Champion(versions, say) if spec.fallback else None
        self._endpoints: list[Endpoint] = []
        self._outcomes = CanaryOutcomes(versions, self._fallback, say)
        self._tasks: list[asyncio.Task[None]] = []
        self._requests: set[asyncio.Task[Routed]] = set()
        self.counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        """Connect and load the fallback.

        Raises:
            FeaturesChangedError: the champion sees other features.
        """
        arguments = (self._versions, self._spec, self._say)
        notes = (self._outcomes.note, None)  # those of one server, so that no request counts twice
        self._endpoints = [
            Endpoint(url, *arguments, note) for url, note in zip(self._urls, notes, strict=False)
        ]
        self._tasks.append(asyncio.create_task(self._versions.follow()))
        if self._fallback is not None:
            await self._fallback.update()
            self._tasks.append(asyncio.create_task(self._fallback.follow()))
        await asyncio.gather(*(one.probe() for one in self._endpoints))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._requests, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in self._endpoints))
        await self._outcomes.close()

    @property
    def away(self) -> bool:
        """Whether no server is asked now."""
        return all(one.away for one in self._endpoints)

    @property
    def state(self) -> str:
        """The counts in one line."""
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(self.counts.items()))
        return f"requests: {counts or 'none'}"

    async def ask(self, x_BTF: NDArray[np.float32]) -> Answered:
        """Answer for windows, within the deadline and the time of the fallback.

        Raises:
            FeaturesChangedError: the champion sees other features.
            TicklineError, OSError: neither a server nor the fallback answers, or the windows are
                bad.
        """
        try:
            routed = await self._routed(x_BTF)
        except FeaturesChangedError:
            raise
        except (TicklineError, OSError) as error:
            check_windows(x_BTF)
            answered = None if self._fallback is None else self._fallback.ask(x_BTF)
            if answered is None:
                self.counts["failed"] += 1
                self._require_features()
                raise error
            self.counts["fallback"] += 1
            return answered
        self.counts["triton"] += 1
        for target, _ in routed.failed:
            self.counts[
                "other features" if self._versions.refuses(target.version) else "rerouted"
            ] += 1
        version = self._versions.find(routed.target.version)
        return Answered(probability(routed.logits_BC), (), version.number, version.threshold)

    def _require_features(self) -> None:
        """Refuse a champion with other features, even if no server could be asked."""
        champion = self._versions.serving.route().champion
        if champion is not None and self._versions.refuses(champion.version):
            self._versions.find(champion.version)

    async def _routed(self, x_BTF: NDArray[np.float32]) -> Routed:
        """The first answer of the servers that are not away."""
        servers = [one for one in self._endpoints if not one.away]
        if not servers:
            raise ServingError("no Triton server answers", where=", ".join(map(shown, self._urls)))
        deadline_s = self._spec.deadline_ms / 1e3
        if len(servers) == 1:
            return await servers[0].ask(x_BTF, deadline_s)
        return await self._hedged(servers[0], servers[1], x_BTF, deadline_s)

    async def _hedged(
        self, first: Endpoint, second: Endpoint, x_BTF: NDArray[np.float32], deadline_s: float
    ) -> Routed:
        """Ask the second server if the first is slow or fails; the first answer counts.

        The slower request ends by itself, so that a server that hangs is found to be away.
        """
        tasks = [self._start(first.ask(x_BTF, deadline_s))]
        done, waiting = await asyncio.wait(tasks, timeout=self._spec.hedge_after_ms / 1e3)
        if waiting or tasks[0].exception() is not None:
            self.counts["hedged"] += 1
            left_s = deadline_s - self._spec.hedge_after_ms / 1e3
            tasks.append(self._start(second.ask(x_BTF, left_s)))
            waiting = set(tasks)
        while True:
            for task in done:
                if task.exception() is None:
                    self.counts["hedge won"] += task is not tasks[0]
                    return task.result()
            if not waiting:
                return tasks[0].result()  # raises its error
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    def _start(self, request: Coroutine[Any, Any, Routed]) -> asyncio.Task[Routed]:
        task = asyncio.get_running_loop().create_task(request)
        self._requests.add(task)
        task.add_done_callback(self._finish)
        return task

    def _finish(self, task: asyncio.Task[Routed]) -> None:
        self._requests.discard(task)
        if not task.cancelled():
            task.exception()  # of a request that nobody waits for
