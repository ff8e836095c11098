"""What a canary's judge learns of live traffic.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from infra.live.inference.champion import Champion
from infra.live.inference.versions import Versions
from model_code.comparison.outcomes import outcomes_of
from model_code.models.probability import probability
from model_code.repository.route import Route
from model_code.serving.outcome_log import OutcomeLog
from model_code.serving.routed import Routed
from model_code.training.threshold import decide

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
        self._versions, self._fallback = versions, fallback
        self._log = OutcomeLog(versions.serving.route_file, say)
        self._compare_at = 0.0

    async def close(self) -> None:
        """Write what is kept."""
        await self._log.close()

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
        failed = [one for one in routed.failed if not self._versions.refuses(one[0].version)]
        agrees = champion = None
        if routed.target == candidate:
            agrees, champion = self._compare(route, routed, x_BTF)
        self._log.add(
            outcomes_of(
                candidate, routed.target, failed, routed.late, ms, agrees=agrees, champion=champion
            )
        )

    def _compare(
        self, route: Route, routed: Routed, x_BTF: NDArray[np.float32]
    ) -> tuple[bool | None, bool | None]:
        """Whether the champion decides the same on the first window, and what it decides."""
        now = time.monotonic()
        champion = route.champion
        if self._fallback is None or champion is None or now < self._compare_at:
            return None, None
        if self._fallback.version != champion.version:
            return None, None
        self._compare_at = now + COMPARE_S
        wanted = self._fallback.ask(x_BTF[:1])
        if wanted is None or wanted.threshold is None:
            return None, None
        threshold = self._versions.find(routed.target.version).threshold
        found = decide(probability(routed.logits_BC[:1]), threshold)
        decides = bool(decide(wanted.probability_B, wanted.threshold)[0])
        return bool(found[0]) == decides, decides
