"""What a canary's judge learns of live traffic.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

import asyncio
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from infra.live.inference.champion import Champion
from infra.live.inference.versions import Versions
from model_code.models.probability import probability
from model_code.repository.route import Route
from model_code.serving.outcomes import Outcome, OutcomeWriter
from model_code.serving.routed import Routed
from model_code.training.threshold import decide

FLUSH_S = 0.25
COMPARE_S = 0.05  # the champion's engine takes about a millisecond of the event loop


class CanaryOutcomes:
    """Writes down each request while the route shares them; otherwise does nothing.

    Now and then the champion's engine in this process answers the candidate's first window too, so
    that their decisions can be compared.

    Args:
        versions: of the repository.
        fallback: the champion's engine; None: decisions are not compared.
        say: called with a line if outcomes cannot be written.
    """

    def __init__(
        self, versions: Versions, fallback: Champion | None, say: Callable[[str], None]
    ) -> None:
        self._versions, self._fallback, self._say = versions, fallback, say
        self._writer = OutcomeWriter(versions.serving.route_file)
        self._compare_at = 0.0

    async def run(self) -> None:
        """Write to the file now and then, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await asyncio.to_thread(self._writer.flush)
            except OSError as error:
                self._say(f"a canary cannot judge this traffic: {error}")

    def note(self, route: Route, routed: Routed, ms: float, x_BTF: NDArray[np.float32]) -> None:
        """Keep the outcome of one answered request.

        Args:
            route: of now.
            routed: the answer.
            ms: that it took.
            x_BTF: its windows.
        """
        candidate = route.candidate
        if candidate is None or not route.shared():
            return
        name, number = candidate.model, candidate.version
        for target, reason in routed.failed:
            if target == candidate and not self._versions.refuses(number):
                late = target in routed.late
                error = "" if late else reason
                self._writer.add(Outcome(name, number, ms if late else None, None, error))
        if routed.target == candidate:
            self._writer.add(Outcome(name, number, ms, self._agrees(route, routed, x_BTF)))
        elif not routed.failed:
            self._writer.add(Outcome(routed.target.model, routed.target.version, ms))

    def _agrees(self, route: Route, routed: Routed, x_BTF: NDArray[np.float32]) -> bool | None:
        now = time.monotonic()
        champion = route.champion
        if self._fallback is None or champion is None or now < self._compare_at:
            return None
        if self._fallback.version != champion.version:
            return None
        self._compare_at = now + COMPARE_S
        wanted = self._fallback.ask(x_BTF[:1])
        if wanted is None or wanted.threshold is None:
            return None
        threshold = self._versions.find(routed.target.version).threshold
        found = decide(probability(routed.logits_BC[:1]), threshold)
        return bool(found[0] == decide(wanted.probability_B, wanted.threshold)[0])
