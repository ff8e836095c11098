"""Canary: the route gives the candidate a growing share, and withdraws it if a goal is broken.

The route file affects every client that follows it. The canary itself sends recorded requests along
the route and judges the responses: a share goes to the candidate, the rest to the champion. It also
judges the outcomes that clients write down (`outcomes.py`), by the same goals. The share expires
soon after the process that judges it is gone.

Shapes: R requests, T = 64 steps, F = 16 features.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_code.errors import PromotionError
from model_code.repository.route import Route, Target
from model_code.serving.observed import Observed, Tally
from model_code.serving.outcomes import OutcomeReader
from model_code.serving.routed import Routed, RoutedClient, WindowsOf
from model_code.serving.shadow import decision
from model_code.settings import PromotionSpec
from model_code.training.threshold import DEFAULT_THRESHOLD

Report = Callable[[float, Observed], None]
LONGEST = 20  # longest step, in multiples of its requests, until the candidate got enough of them
LEASE_S = 20.0  # a share expires this long after its last renewal


class CanaryStoppedError(PromotionError):
    """The candidate broke a goal; the champion has all requests again."""


async def walk(
    client: RoutedClient,
    route_file: Path,
    x_RTF: NDArray[np.float32],
    candidate: Target,
    spec: PromotionSpec,
    report: Report,
    thresholds: Mapping[Target, float] | None = None,
    windows_of: Mapping[int, NDArray[np.float32]] | None = None,
) -> list[Observed]:
    """Raise the candidate's share step by step; return one `Observed` per step.

    Each answer is a decision at its model's own threshold; without `thresholds`, at the default.
    A version in `windows_of` gets its own windows (R, 64, 16) of the same rows.

    At the end, also after an error, the champion has all requests again.

    Raises:
        CanaryStoppedError: a goal was broken; the message names the goal and the share.
        ServingError: the champion does not respond either.
    """
    before = Route.load(route_file).champion
    if before is None:
        raise PromotionError("no champion to share requests with")
    own = thresholds or {}

    def window(number: int) -> WindowsOf:
        return lambda target: (windows_of or {}).get(target.version, x_RTF)[number][None]

    requests = [window(number) for number in range(len(x_RTF))]
    threshold = own.get(before, DEFAULT_THRESHOLD)
    agreed_R = [
        decision(await client.ask_of(before, request(before)), threshold) for request in requests
    ]
    steps: list[Observed] = []
    champion_ms: list[float] = []  # not extended at a share of 100%
    live = _Live(OutcomeReader(route_file), candidate)
    try:
        for share in spec.shares:
            lease = _Lease(route_file, before, candidate, share)
            client.refresh()
            threshold = own.get(candidate, DEFAULT_THRESHOLD)
            steps.append(
                await _step(client, requests, agreed_R, threshold, lease, champion_ms, live, spec)
            )
            report(share, steps[-1])
    finally:
        Route(champion=before).save(route_file)
    return steps


class _Lease:
    """A candidate's share in the route file, renewed while it is judged."""

    def __init__(self, route_file: Path, champion: Target, candidate: Target, share: float) -> None:
        self.candidate, self.share = candidate, share
        self._file, self._champion = route_file, champion
        self._ends = float("-inf")
        self.renew()

    def renew(self) -> None:
        """Renew the share if less than half of its time is left."""
        now = time.time()
        if self._ends - now > LEASE_S / 2:
            return
        self._ends = now + LEASE_S
        Route(
            champion=self._champion, candidate=self.candidate, share=self.share, until=self._ends
        ).save(self._file)


class _Live:
    """The clients' traffic during the canary."""

    def __init__(self, reader: OutcomeReader, candidate: Target) -> None:
        self._reader, self._candidate = reader, candidate
        self._champion_ms: list[float] = []
        self._tally = Tally(self._champion_ms)

    def begin(self) -> None:
        """Count anew for the next step."""
        self._tally = Tally(self._champion_ms)

    def observed(self) -> Observed | None:
        """What was written down in this step; None if nothing was."""
        for one in self._reader.read():
            if one.target != self._candidate:
                self._champion_ms += [] if one.ms is None else [one.ms]
            elif one.ms is None:
                self._tally.error(one.error)
            else:
                self._tally.answer(one.ms, agrees=one.agrees)
        return self._tally.observed() if self._tally.requests else None


async def _step(
    client: RoutedClient,
    requests: Sequence[WindowsOf],
    agreed_R: list[bool],
    threshold: float,
    lease: _Lease,
    champion_ms: list[float],
    live: _Live,
    spec: PromotionSpec,
) -> Observed:
    tally, candidate = Tally(champion_ms), lease.candidate
    live.begin()
    number = 0
    # a small share may need more requests until the candidate can be judged
    while number < spec.canary_requests or (
        tally.requests < spec.canary_patience and number < LONGEST * spec.canary_requests
    ):
        lease.renew()
        index = number % len(requests)
        begun = time.perf_counter()
        answer: Routed = await client.ask(requests[index])
        ms = 1e3 * (time.perf_counter() - begun)
        for target, reason in answer.failed:
            if target == candidate:
                tally.error(reason)
        if answer.target == candidate:
            agrees = decision(answer.logits_BC, threshold) == agreed_R[index]
            tally.answer(ms, agrees=agrees)
        elif not answer.failed:
            tally.champion_ms.append(ms)
        _stop_if(tally.observed(live.observed()).broken(spec), lease)
        number += 1
    seen = tally.observed(live.observed())
    _stop_if(seen.broken(spec, final=True), lease)
    return seen


def _stop_if(broken: list[str], lease: _Lease) -> None:
    if broken:
        raise CanaryStoppedError(
            f"canary stopped at a share of {lease.share:.0%}: {'; '.join(broken)}",
            where=f"{lease.candidate.model} version {lease.candidate.version}",
            remedy="the champion has all requests again; see the candidate's evidence page",
        )
