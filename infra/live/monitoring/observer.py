"""Counts what a service decides; everything that shows the service reads it here.

The service's event loop counts. Other threads read copies, so that they never delay a decision.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from infra.live.monitoring.document import Opportunity, Part
from infra.live.status import Status
from model_code.live.feedback.figures import Figures
from model_code.live.histogram import MS, Histogram
from model_code.live.messages import Decision
from model_code.live.path import Asked

STAGES = ("decode", "features", "queue", "inference", "publish")
TOTAL, SERVICE = "tick to decision", "service"
TRANSPORT, HANDOVER = "transport", "hand-over"
POINT_MS = 250
KEPT_POINTS = 5 * 60 * 1000 // POINT_MS
KEPT_OPPORTUNITIES = 30
MOST_SYMBOLS = 64
FAR_NS = 60_000_000_000
UPDATE_S = 0.25
COPY_S, COPIES = 5.0, 13  # percentiles cover the last minute
RATES_S = 10.0


@dataclass
class Instrument:
    """What is kept of an instrument. A point is (begin in ms, price, p, threshold, true, all)."""

    newest: Decision
    bid_price: float
    ask_price: float
    at_ns: int = 0
    decisions: int = 0
    opportunities: int = 0
    points: deque[tuple[int, float, float, float, int, int]] = field(
        default_factory=lambda: deque(maxlen=KEPT_POINTS)
    )


@dataclass(frozen=True)
class Copy:
    """The counts of a moment, from which those of the last minute follow."""

    at_s: float
    durations: dict[str, list[int]]
    versions: Counter[int]
    flags: Counter[str]
    decided: int


class Observer:
    """A sink of the service that counts.

    Args:
        clock: ns since the epoch.

    Attributes:
        durations: histograms by name: `TOTAL` from the tick's local stamp until it is handed to
            the producer, `TRANSPORT` until it is received, `SERVICE` and each of its `STAGES` from
            the bytes to the decision, `HANDOVER` the rest.
        answers: decisions by (symbol, version, decision).
        versions, flags: decisions by version and by flag.
        decided: decisions.
        far: decisions whose stamp is over a minute away from the clock, as in recorded days; they
            have no `TOTAL` and no `TRANSPORT`.
        instruments: by symbol, at most `MOST_SYMBOLS`.
        opportunities: newest last.
        hidden: symbols beyond `MOST_SYMBOLS`, counted as `other`.
        status: of the last update; None before the first.
        tick_at_ns, decision_at_ns: when the newest came; None before the first.
        parts: what the service needs besides the broker; each is called for each document and
            must not wait.
        feedback: figures of the newest judged window by model version.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self.started_ns = clock()
        self.durations = {
            name: Histogram() for name in (TOTAL, TRANSPORT, HANDOVER, *STAGES, SERVICE)
        }
        self._stages = [self.durations[name].add for name in STAGES]
        self.answers: Counter[tuple[str, int, bool]] = Counter()
        self.versions: Counter[int] = Counter()
        self.flags: Counter[str] = Counter()
        self.decided = self.far = 0
        self.instruments: dict[str, Instrument] = {}
        self.opportunities: deque[Opportunity] = deque(maxlen=KEPT_OPPORTUNITIES)
        self.hidden: set[str] = set()
        self.status: Status | None = None
        self.tick_at_ns: int | None = None
        self.decision_at_ns: int | None = None
        self.parts: list[Callable[[], Part]] = []
        self.feedback: Callable[[], Mapping[int, Figures]] = dict
        self.copies: deque[Copy] = deque(maxlen=COPIES)
        self.rates: deque[tuple[float, int, int]] = deque(maxlen=round(RATES_S / UPDATE_S) + 1)

    async def write(self, decisions: Sequence[Decision], asked: Sequence[Asked]) -> None:
        """Count the decisions of a round."""
        now_ns = self._clock()
        prices = {
            one.quote.symbol: (one.row.bid_price, one.row.ask_price)
            for windows in asked
            for one in windows.waiting
        }
        for one in decisions:
            self._count(one, now_ns)
            self._keep(one, prices[one.symbol], now_ns)
        if decisions:
            self.decision_at_ns = now_ns

    def update(self, status: Status, at_s: float) -> None:
        """Take the service's own counts.

        Args:
            status: of this moment.
            at_s: a clock that never steps back.
        """
        before = 0 if self.status is None else self.status.ledger.taken
        if status.ledger.taken != before:
            self.tick_at_ns = self._clock()
        self.status = status
        self.rates.append((at_s, status.ledger.taken, self.decided))
        if not self.copies or at_s - self.copies[-1].at_s >= COPY_S:
            self.copies.append(self.copy(at_s))

    def copy(self, at_s: float) -> Copy:
        """The counts of this moment."""
        return Copy(
            at_s,
            {name: list(one.counts) for name, one in self.durations.items()},
            self.versions.copy(),
            self.flags.copy(),
            self.decided,
        )

    async def watch(self, status: Callable[[], Status]) -> None:
        """Update until cancelled; in the service's event loop."""
        while True:
            self.update(status(), time.monotonic())
            await asyncio.sleep(UPDATE_S)

    def _count(self, one: Decision, now_ns: int) -> None:
        latency = one.latency
        for add, duration_ns in zip(
            self._stages,
            (
                latency.decode, latency.features, latency.queue, latency.inference, latency.publish,
            ),
            strict=True,
        ):  # fmt: skip
            add(duration_ns)
        service_ns, total_ns = latency.total, now_ns - one.local_ns
        self.durations[SERVICE].add(service_ns)
        received_ns = one.local_ns if one.received_ns is None else one.received_ns
        self.durations[HANDOVER].add(now_ns - received_ns - service_ns)
        if abs(total_ns) < FAR_NS:
            self.durations[TOTAL].add(total_ns)
            self.durations[TRANSPORT].add(received_ns - one.local_ns)
        else:
            self.far += 1
        self.decided += 1
        self.versions[one.model_version] += 1
        for flag in one.flags:
            self.flags[flag] += 1

    def _keep(self, one: Decision, prices: tuple[float, float], now_ns: int) -> None:
        seen = self.instruments.get(one.symbol)
        if seen is None and len(self.instruments) < MOST_SYMBOLS:
            seen = self.instruments[one.symbol] = Instrument(one, *prices)
        self.answers[one.symbol if seen else "other", one.model_version, one.decision] += 1
        if one.decision:
            self.opportunities.append(_opportunity(one, now_ns))
        if seen is None:
            self.hidden.add(one.symbol)
            return
        seen.newest, (seen.bid_price, seen.ask_price), seen.at_ns = one, prices, now_ns
        seen.decisions += 1
        seen.opportunities += one.decision
        at_ms, yes, count = now_ns // MS // POINT_MS * POINT_MS, int(one.decision), 1
        if seen.points and seen.points[-1][0] == at_ms:
            *_, earlier, others = seen.points.pop()
            yes, count = yes + earlier, count + others
        price = (prices[0] + prices[1]) / 2
        seen.points.append((at_ms, price, one.probability, one.threshold, yes, count))


def _opportunity(one: Decision, now_ns: int) -> Opportunity:
    return Opportunity(
        at_ms=now_ns // MS,
        symbol=one.symbol,
        probability=one.probability,
        threshold=one.threshold,
        version=one.model_version,
        total_ms=one.latency.total / MS,
    )
