"""Shadow: recorded requests go to the champion and, mirrored, to the candidate.

No client waits for the candidate, and its responses are not used. The two get requests one at a
time, in alternating order, so that neither always gets the warmer core.

Shapes: R requests, T = 64 steps, F = 16 features.
"""

import asyncio
import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from model_code.errors import ServingError
from model_code.repository.route import Target
from model_code.serving.observed import Observed, Tally
from model_code.serving.routed import RoutedClient
from model_code.settings import PromotionSpec
from model_code.training.threshold import DEFAULT_THRESHOLD, decide


async def mirror(
    client: RoutedClient,
    x_RTF: NDArray[np.float32],
    champion: Target,
    candidate: Target,
    spec: PromotionSpec,
    thresholds: Mapping[Target, float] | None = None,
    windows_of: Mapping[int, NDArray[np.float32]] | None = None,
) -> Observed:
    """Send `spec.shadow_requests` of the windows, in turn, for at most `spec.shadow_s` seconds.

    Each answer is a decision at its model's own threshold; without `thresholds`, at the default.
    A version in `windows_of` gets its own windows (R, 64, 16) of the same rows.

    Raises:
        ServingError: the champion does not respond.
    """
    own = thresholds or {}
    tally, end = Tally(), time.monotonic() + spec.shadow_s
    for number in range(spec.shadow_requests):
        if time.monotonic() > end:
            break
        order = (champion, candidate) if number % 2 else (candidate, champion)
        seen: dict[Target, tuple[bool, float]] = {}
        for target in order:
            own_RTF = (windows_of or {}).get(target.version, x_RTF)
            x_BTF = own_RTF[number % len(x_RTF)][None]
            begun = time.perf_counter()
            try:
                logits_BC = await client.ask_of(target, x_BTF)
            except ServingError as error:
                if target == champion:
                    raise
                tally.error(error.what)
                continue
            ms = 1e3 * (time.perf_counter() - begun)
            seen[target] = decision(logits_BC, own.get(target, DEFAULT_THRESHOLD)), ms
        tally.champion_ms.append(seen[champion][1])
        if candidate in seen:
            agrees = seen[candidate][0] == seen[champion][0]
            tally.answer(seen[candidate][1], agrees=agrees)
        await asyncio.sleep(0)
    return tally.observed()


def decision(logits_BC: NDArray[np.float32], threshold: float = DEFAULT_THRESHOLD) -> bool:
    """Whether the model predicts an opportunity: a probability at or above the threshold."""
    return bool(decide(softmax(logits_BC[:1].astype(np.float64), axis=1)[:, 1], threshold)[0])
