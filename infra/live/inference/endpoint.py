"""One Triton server: asked while it answers, probed in the background while it does not.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from infra.live.inference.versions import UnreadError, Versions
from infra.live.model import FeaturesChangedError
from infra.live.spec import TritonSpec
from model_code.errors import ServingError, TicklineError
from model_code.repository.route import Route, Target
from model_code.serving.routed import Routed, RoutedClient, WindowsOf
from model_code.serving.wire import check_windows, shown
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH

Note = Callable[[Route, Routed, float, NDArray[np.float32]], None]
PROBE_DEADLINE_S = 5.0  # the first request to a model takes longer
PROBE_BTF = np.zeros((1, SEQUENCE_LENGTH, FEATURE_COUNT), np.float32)


class Endpoint:
    """One Triton server; while it does not answer, it is probed instead of asked.

    Args:
        url: gRPC host:port; several targets in the order of preference.
        versions: of the repository.
        spec: deadline and probes.
        say: called with each line for the log.
        note: called with the route, each answer, its time in ms and its windows.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        versions: Versions,
        spec: TritonSpec,
        say: Callable[[str], None],
        note: Note | None = None,
    ) -> None:
        self.url, self._note = shown(url), note
        self._client = RoutedClient(url, versions.serving.route_file, attempts=1, outcomes=False)
        self._versions, self._spec, self._say = versions, spec, say
        self._probing: asyncio.Task[None] | None = None
        self._refused: set[Target] = set()

    @property
    def away(self) -> bool:
        """Whether the last request failed and no probe was answered since."""
        return self._probing is not None

    async def close(self) -> None:
        """Stop probing, disconnect."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._client.__aexit__()

    async def ask(self, x_BTF: NDArray[np.float32], deadline_s: float) -> Routed:
        """The logits of the version that the route names.

        Raises:
            FeaturesChangedError: the champion sees other features.
            UnreadError: the champion's files are still being read.
            TicklineError, OSError: no answer, or no route; the server is away from now on.
        """
        begun = time.perf_counter()
        unread: set[Target] = set()
        try:
            # the rest of the deadline is the server's
            await self._read_champion(deadline_s / 2)
            left_s = deadline_s - (time.perf_counter() - begun)
            async with asyncio.timeout(left_s):
                routed = await self._client.ask(self._windows(x_BTF, unread), left_s)
            route = self._client.route
        except (FeaturesChangedError, UnreadError):
            raise
        except TimeoutError:
            error = ServingError(f"no answer within {1e3 * deadline_s:.0f} ms", where=self.url)
            self._leave(error)
            raise error from None
        except (TicklineError, OSError) as error:
            check_windows(x_BTF)  # bad windows are not the server's fault
            self._leave(error)
            raise
        if unread:  # they were not asked, so they did not fail
            failed = tuple(one for one in routed.failed if one[0] not in unread)
            routed = replace(routed, failed=failed)
        if self._note is not None:
            ms = 1e3 * (time.perf_counter() - begun)
            loop = asyncio.get_running_loop()
            loop.call_soon(self._note, route, routed, ms, x_BTF)  # decisions first
        return routed

    async def probe(self) -> None:
        """Ask once, with a long deadline; a failure begins the probes in the background."""
        try:
            await self._read_champion(PROBE_DEADLINE_S)
            await self._client.ask(self._windows(PROBE_BTF), PROBE_DEADLINE_S)
        except FeaturesChangedError:
            raise
        except (TicklineError, OSError) as error:
            self._leave(error)

    async def _read_champion(self, wait_s: float) -> None:
        champion = self._client.route.champion
        if champion is not None:
            await self._versions.read(champion.version, wait_s)

    def _windows(self, x_BTF: NDArray[np.float32], unread: set[Target] | None = None) -> WindowsOf:
        def of(target: Target) -> NDArray[np.float32]:
            try:
                self._versions.find(target.version)
            except UnreadError:
                if unread is not None:
                    unread.add(target)
                raise
            except FeaturesChangedError as error:
                if target not in self._refused:
                    self._refused.add(target)
                    self._say(f"not asked: {error.what}")
                raise
            return x_BTF

        return of

    def _leave(self, error: TicklineError | OSError) -> None:
        if self._probing is None:
            why = error.what if isinstance(error, TicklineError) else error
            self._say(f"Triton at {self.url} is away: {why}")
            self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        wait_s = self._spec.probe_ms / 1e3
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, self._spec.longest_probe_ms / 1e3)
            with suppress(Exception):  # of any kind: without this task it would be away for good
                await self._client.ask(self._windows(PROBE_BTF), PROBE_DEADLINE_S)
                break
        self._say(f"Triton at {self.url} answers again")
        self._probing = None
