"""Canary: the route gives the candidate a growing share, and withdraws it if a goal is broken.

The route file affects every client that follows it. The canary sends recorded requests along the
route and judges the responses: a share goes to the candidate, the rest to the champion. Each answer
of the candidate is paired with the champion's to the same request. It also judges the outcomes that
clients write down (`comparison/outcomes.py`) and the failures that Triton itself counted, by the
same goals and by tests that are valid at every look. The share expires soon after the process that
judges it is gone.

Shapes: R requests, T = 64 steps, F = 16 features.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_code.comparison.observed import Observed, Tally
from model_code.comparison.outcomes import OutcomeReader
from model_code.errors import PromotionError, ServingError
from model_code.repository.route import Route, Target
from model_code.serving.client import Statistics
from model_code.serving.routed import Routed, RoutedClient
from model_code.serving.shadow import Recorded
from model_code.settings import PromotionSpec

Report = Callable[[float, Observed], None]
Counters = Callable[[], Statistics]
Turn = Callable[[Route], None]
LONGEST = 20  # longest step, in multiples of its requests, until the candidate got enough of them
LEASE_S = 20.0  # a share expires this long after its last renewal
POLL_S = 0.05
COUNTERS_S = 0.25
SETTLE_S = 1.0  # clients write outcomes down later than Triton counts them
MOST_CHAMPION_MS = 1000


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
    *,
    counters: Counters | None = None,
    shadowed: Observed | None = None,
    turn: Turn | None = None,
) -> list[Observed]:
    """Raise the candidate's share step by step; return one `Observed` per step.

    Each answer is a decision at its model's own threshold; without `thresholds`, at the default.
    A version in `windows_of` gets its own windows (R, 64, 16) of the same rows.

    At the end, also after an error, the champion has all requests again.

    Args:
        client: that writes no outcomes down.
        route_file: of the serving repository.
        x_RTF: recorded requests, drawn at random.
        candidate: to judge.
        spec: steps and goals.
        report: called after each step.
        thresholds: of the two models.
        windows_of: by version.
        counters: asks Triton for the candidate's counts; None: they are not judged.
        shadowed: result of shadow; its decisions count too.
        turn: writes the route, as `ServingRepository.turn`; None: the file is written.

    Raises:
        CanaryStoppedError: a goal was broken; the message names the goal and the share.
        FencedError: an emergency rollback took over; it has turned the route.
        ServingError: the champion does not respond either.
    """
    turn = turn or (lambda route: route.save(route_file))
    before = Route.load(route_file).champion
    if before is None:
        raise PromotionError("no champion to share requests with")
    server = None if counters is None else _Server(counters)
    if server is not None:
        await server.look(now=True)
    judge = _Judge(
        client,
        Recorded(client, x_RTF, thresholds, windows_of),
        _Live(OutcomeReader(route_file), candidate, spec),
        server,
        spec,
        np.random.default_rng(candidate.version),
    )
    steps: list[Observed] = []
    lease = _Lease(turn, before, candidate)
    try:
        for share in spec.shares:
            lease.begin(share)
            client.refresh()
            steps.append(await judge.step(lease, steps[-1] if steps else shadowed))
            report(share, steps[-1])
    finally:
        lease.withdraw()
    return steps


class _Lease:
    """A candidate's share in the route file, renewed while it is judged."""

    def __init__(self, turn: Turn, champion: Target, candidate: Target) -> None:
        self.champion, self.candidate, self.share = champion, candidate, 0.0
        self._turn, self._ends = turn, float("-inf")

    def begin(self, share: float) -> None:
        """Give the candidate a share."""
        self.share, self._ends = share, float("-inf")
        self.renew()

    def renew(self) -> None:
        """Renew the share if less than half of its time is left."""
        now = time.time()
        if self._ends - now > LEASE_S / 2:
            return
        self._ends = now + LEASE_S
        shared = Route(
            champion=self.champion, candidate=self.candidate, share=self.share, until=self._ends
        )
        self._turn(shared)

    def withdraw(self) -> None:
        """Give the champion all requests again."""
        self._turn(Route(champion=self.champion))


class _Live:
    """The clients' traffic during the canary.

    Attributes:
        active: whether any client wrote an outcome down.
    """

    def __init__(self, reader: OutcomeReader, candidate: Target, spec: PromotionSpec) -> None:
        self._reader, self._candidate, self._spec = reader, candidate, spec
        self._champion_ms: deque[float] = deque(maxlen=MOST_CHAMPION_MS)
        self._tally = Tally(spec)
        self.active = False

    def begin(self) -> None:
        """Start the next step: errors and latency count from zero, decisions continue."""
        self._tally = Tally(self._spec, self._tally.observed())

    def observed(self) -> Observed | None:
        """What was written down in this step; None if nothing was."""
        # the champion's first: the candidate's are paired with them
        for one in sorted(self._reader.read(), key=lambda one: one.target == self._candidate):
            self.active = True
            if one.target != self._candidate:
                self._champion_ms += [] if one.ms is None else [one.ms]
            elif one.error:
                self._tally.error(one.error, count=one.count)
            else:
                # paired with the champion's answer that is nearest in time
                pair = one.ms is not None and self._champion_ms
                champion_ms = self._champion_ms.pop() if pair else None
                self._tally.answer(one.ms, champion_ms=champion_ms, count=one.count)
                self._tally.late += one.count if one.late else 0
                if one.agrees is not None:
                    self._tally.decision(agrees=one.agrees, champion=one.champion)
        return self._tally.observed() if self._tally.requests else None


class _Server:
    """What Triton itself counted of the candidate in this step."""

    def __init__(self, counters: Counters) -> None:
        self._counters, self._looked = counters, float("-inf")
        self._last: Statistics | None = None
        self._requests = self._failed = 0
        self._readings: list[tuple[float, int]] = []

    def begin(self) -> None:
        """Start the next step: count from zero."""
        self._requests = self._failed = 0
        self._readings = []

    async def look(self, *, now: bool = False) -> None:
        """Ask Triton, unless it was asked just before."""
        clock = time.monotonic()
        if clock - self._looked < COUNTERS_S and not now:
            return
        self._looked = clock
        try:
            found = await asyncio.to_thread(self._counters)
        except ServingError:
            return  # the canary's own requests tell of a server or a candidate that is gone
        requests, failed, last = found.requests, found.failed, self._last
        if last is None:
            requests = failed = 0
        elif requests >= last.requests and failed >= last.failed:  # else it was loaded again
            requests, failed = requests - last.requests, failed - last.failed
        self._last = found
        self._requests, self._failed = self._requests + requests, self._failed + failed
        self._readings.append((clock, self._failed))

    def unsettled(self, known: int) -> bool:
        """Whether a client may still write down a failure that Triton counted."""
        return self._failed > max(known, self._settled())

    def observed(self, known: int) -> Observed:
        """Triton's requests and failures; those that known clients had are counted there."""
        foreign = max(0, self._settled() - known)
        return Observed.of_server(
            self._requests + self._failed, foreign, "seen by other clients or in retries"
        )

    def _settled(self) -> int:
        until = time.monotonic() - SETTLE_S
        return max((failed for at, failed in self._readings if at <= until), default=0)


@dataclass
class _Judge:
    """Sends recorded requests along the route and judges one step after another."""

    client: RoutedClient
    recorded: Recorded
    live: _Live
    server: _Server | None
    spec: PromotionSpec
    rng: np.random.Generator

    async def step(self, lease: _Lease, before: Observed | None) -> Observed:
        """One step's measurements.

        Raises:
            CanaryStoppedError: a goal was broken.
            ServingError: the champion does not respond.
        """
        spec, tally, begun, number = self.spec, Tally(self.spec, before), time.monotonic(), 0
        self.live.begin()
        if self.server is not None:
            self.server.begin()
        while True:
            # a small share may need more requests until the candidate can be judged
            few = tally.requests < spec.canary_patience and number < LONGEST * spec.canary_requests
            asks = few or number < spec.canary_requests
            lease.renew()
            if asks:
                await self._ask(lease, tally)
                number += 1
            else:
                await asyncio.sleep(POLL_S)
            seen = await self._look(tally, last=not asks)
            _stop_if(seen.broken(spec), lease)
            if not asks and not self._waits(seen, time.monotonic() - begun):
                break
        _stop_if(seen.broken(spec, final=True), lease)
        return seen

    async def _ask(self, lease: _Lease, tally: Tally) -> None:
        """Send one request along the route; pair the candidate's answer with the champion's."""
        index, candidate = int(self.rng.integers(len(self.recorded))), lease.candidate
        begun = time.perf_counter()
        answer: Routed = await self.client.ask(lambda to: self.recorded.window(to, index))
        ms = 1e3 * (time.perf_counter() - begun)
        for target, reason in answer.failed:
            if target == candidate:
                tally.error(reason, late=target in answer.late)
        if answer.target == candidate:
            decides, champion_ms = await self.recorded.ask(lease.champion, index)
            agrees = self.recorded.decides(candidate, answer.logits_BC) == decides
            tally.answer(ms, champion_ms=champion_ms)
            tally.decision(agrees=agrees, champion=decides)

    async def _look(self, tally: Tally, *, last: bool) -> Observed:
        """Everything measured so far in this step."""
        live, server, note = self.live.observed(), None, ""
        if self.server is not None:
            await self.server.look(now=last)
            server = self.server.observed(_known(tally, live))
        count, wanted = 0 if live is None else live.requests, self.spec.canary_live_requests
        if server is not None:  # some clients write nothing down
            count = max(count, server.requests - tally.requests)
        if (self.live.active or count) and count < wanted:
            longest = max(self.spec.canary_step_s, self.spec.canary_live_s)
            note = f"too little live traffic: {count} of {wanted} requests within {longest:g} s"
        return tally.observed(live, server, note)

    def _waits(self, seen: Observed, elapsed_s: float) -> bool:
        """Whether the step needs more time or more live requests."""
        short = bool(seen.note) and elapsed_s < self.spec.canary_live_s
        unsettled = self.server is not None and self.server.unsettled(_known(seen, seen.live))
        return elapsed_s < self.spec.canary_step_s or short or unsettled


def _known(tally: Tally | Observed, live: Observed | None) -> int:
    """Failures that clients wrote down; Triton may count a late one as failed too."""
    return tally.errors + (0 if live is None else live.errors + live.late)


def _stop_if(broken: list[str], lease: _Lease) -> None:
    if broken:
        raise CanaryStoppedError(
            f"canary stopped at a share of {lease.share:.0%}: {'; '.join(broken)}",
            where=f"{lease.candidate.model} version {lease.candidate.version}",
            remedy="the champion has all requests again; see the candidate's evidence page",
        )
