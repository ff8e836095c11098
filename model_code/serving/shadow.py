"""Shadow: recorded requests go to the champion and, mirrored, to the candidate.

No client waits for the candidate, and its responses are not used. The two get requests one at a
time, in alternating order, so that neither always gets the warmer core. Requests are drawn at
random from the recorded ones, so that each draw is a trial of the same rate.

Where few requests are positives of the champion, a candidate that never decides true agrees in
nearly all. So the recorded positives are replayed too.

Shapes: R requests, P positives, T = 64 steps, F = 16 features.
"""

import asyncio
import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from model_code.comparison.observed import Observed, Tally
from model_code.errors import ServingError
from model_code.repository.route import Target
from model_code.serving.routed import RoutedClient
from model_code.settings import MAX_BATCH_SIZE, PromotionSpec
from model_code.training.threshold import DEFAULT_THRESHOLD, decide


class Recorded:
    """Recorded requests as each version sees them, and what it decides.

    Args:
        client: of the server.
        x_RTF: windows (R, 64, 16) float32.
        thresholds: each model's own; without, the default.
        windows_of: a version's own windows of the same rows; without, `x_RTF`.
    """

    def __init__(
        self,
        client: RoutedClient,
        x_RTF: NDArray[np.float32],
        thresholds: Mapping[Target, float] | None = None,
        windows_of: Mapping[int, NDArray[np.float32]] | None = None,
    ) -> None:
        self._client, self._x_RTF = client, x_RTF
        self._thresholds, self._windows_of = thresholds or {}, windows_of or {}

    def __len__(self) -> int:
        return len(self._x_RTF)

    def window(self, target: Target, index: int) -> NDArray[np.float32]:
        """One request (1, 64, 16)."""
        own_RTF = self._of(target)
        return own_RTF[index : index + 1]

    def decides(self, target: Target, logits_BC: NDArray[np.float32]) -> bool:
        """Whether the first response is an opportunity at the model's own threshold."""
        return decision(logits_BC, self._thresholds.get(target, DEFAULT_THRESHOLD))

    async def ask(self, target: Target, index: int) -> tuple[bool, float]:
        """The model's decision on one request, and its latency in ms.

        Raises:
            ServingError: no response.
        """
        x_BTF, begun = self.window(target, index), time.perf_counter()
        logits_BC = await self._client.ask_of(target, x_BTF)
        ms = 1e3 * (time.perf_counter() - begun)
        return self.decides(target, logits_BC), ms

    async def positives(self, target: Target) -> NDArray[np.intp]:
        """Indices (P,) of the requests on which the model decides true.

        Raises:
            ServingError: no response.
        """
        x_RTF, found = self._of(target), list[bool]()
        for start in range(0, len(x_RTF), MAX_BATCH_SIZE):
            logits_BC = await self._client.ask_of(target, x_RTF[start : start + MAX_BATCH_SIZE])
            found += [self.decides(target, one_C[None]) for one_C in logits_BC]
        return np.flatnonzero(found)

    def _of(self, target: Target) -> NDArray[np.float32]:
        return self._windows_of.get(target.version, self._x_RTF)


async def mirror(
    client: RoutedClient,
    x_RTF: NDArray[np.float32],
    champion: Target,
    candidate: Target,
    spec: PromotionSpec,
    thresholds: Mapping[Target, float] | None = None,
    windows_of: Mapping[int, NDArray[np.float32]] | None = None,
    *,
    even: int | None = None,
) -> Observed:
    """Send `spec.shadow_requests` of the windows, for at most `spec.shadow_s` seconds.

    They are drawn from the first `even` windows; None: from all. Then the champion's positives
    among all windows are sent until there were `spec.positive_requests` of them.

    Each answer is a decision at its model's own threshold; without `thresholds`, at the default.
    A version in `windows_of` gets its own windows (R, 64, 16) of the same rows.

    Raises:
        ServingError: the champion does not respond.
    """
    recorded = Recorded(client, x_RTF, thresholds, windows_of)
    tally, end = Tally(spec), time.monotonic() + spec.shadow_s
    positive_P = await recorded.positives(champion)
    tally.recorded_positives = len(positive_P)
    rng = np.random.default_rng(candidate.version)

    async def send(indices: NDArray[np.intp], *, drawn: bool) -> None:
        for number, index in enumerate(indices):
            if time.monotonic() > end:
                return
            first = (champion, candidate) if number % 2 else (candidate, champion)
            found = await _both(recorded, int(index), first, champion, tally)
            if candidate in found:
                (theirs, their_ms), (ours, our_ms) = found[champion], found[candidate]
                tally.answer(our_ms, champion_ms=their_ms)
                tally.decision(agrees=ours == theirs, champion=theirs, drawn=drawn)
            await asyncio.sleep(0)

    await send(rng.integers(even or len(recorded), size=spec.shadow_requests), drawn=True)
    missing = max(0, spec.positive_requests - tally.positives)
    if len(positive_P):
        await send(rng.choice(positive_P, size=missing), drawn=False)
    return tally.observed()


async def _both(
    recorded: Recorded, index: int, order: tuple[Target, Target], champion: Target, tally: Tally
) -> dict[Target, tuple[bool, float]]:
    """Decision and latency of each that answers; a candidate that does not is an error."""
    seen: dict[Target, tuple[bool, float]] = {}
    for target in order:
        try:
            seen[target] = await recorded.ask(target, index)
        except ServingError as error:
            if target == champion:
                raise
            tally.error(error.what)
    return seen


def decision(logits_BC: NDArray[np.float32], threshold: float = DEFAULT_THRESHOLD) -> bool:
    """Whether the model predicts an opportunity: a probability at or above the threshold."""
    return bool(decide(softmax(logits_BC[:1].astype(np.float64), axis=1)[:, 1], threshold)[0])
