"""How long ticks took to their decisions, by stage, and the highest rate that a path sustains.

Open loop: a tick's time counts from the moment it was due to be sent, not from when it was sent.
A path, a broker or a sender that falls behind therefore shows it (coordinated omission: Tene, "How
NOT to Measure Latency", 2013).

Shapes: N decisions, S stages.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.live.messages import Decision

STAGES = ("broker in", "decode", "features", "queue", "inference", "publish", "broker out")
OWN = ("decode", "features", "queue", "publish")
P99_MS = 10.0
REACHED = 0.99  # of the rate that was asked for
BUSY = 0.9  # from which the processors are the limit
STEP = 1.06  # between the highest sustained rate and the lowest that is not


def stage_times(one: Decision, read_ns: int) -> tuple[int, ...]:
    """Time in each of `STAGES`, in ns; their sum is the time from the tick's stamp to `read_ns`.

    Args:
        one: its `local_ns` is when the tick was due.
        read_ns: when the decision was read, on the clock of the stamps.

    Raises:
        DataError: the decision does not say when it was received and decided.
    """
    if one.received_ns is None or one.decided_ns is None:
        raise DataError(
            f"a decision on {one.symbol} has no received_ns or decided_ns",
            remedy="measure a service of this Tickline version",
        )
    spent = one.latency
    inside = one.decided_ns - one.received_ns
    queue = inside - spent.decode - spent.features - spent.inference
    out = read_ns - one.decided_ns - spent.publish
    return (
        one.received_ns - one.local_ns,
        spent.decode,
        spent.features,
        queue,
        spent.inference,
        spent.publish,
        out,
    )


@dataclass(frozen=True)
class TickTimes:
    """One measurement at one rate.

    Attributes:
        rate: ticks a second that were asked for.
        seconds: measured, without the warm-up.
        ticks: sent in that time.
        quotes: of the ticks; the others are trades, which carry no decision.
        stage_NS: int64, ns in each stage.
        sent_late_N: int64, ns between due and sent, of each message.
        cpu_s: processor seconds by process.
        busy: share of the machine's processors in use, by all processes.
        answered_by: decisions by their flags; an empty one is the routed model server.
        stages: names of the S columns.
    """

    rate: float
    seconds: float
    ticks: int
    quotes: int
    stage_NS: NDArray[np.int64]
    sent_late_N: NDArray[np.int64]
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    busy: float = 0.0
    answered_by: Mapping[tuple[str, ...], int] = field(default_factory=Counter)
    stages: tuple[str, ...] = STAGES

    @property
    def decided(self) -> int:
        """Decisions."""
        return len(self.stage_NS)

    @property
    def reached(self) -> float:
        """Ticks a second that were sent."""
        return self.ticks / self.seconds

    def ms(self, level: float, *stages: str) -> float:
        """A percentile of the time in these stages together, in ms; of all without any.

        NaN without decisions.
        """
        if not self.decided:
            return float("nan")
        columns = [self.stages.index(name) for name in stages or self.stages]
        return float(np.percentile(self.stage_NS[:, columns].sum(axis=1), level)) / 1e6

    @property
    def own_ms(self) -> float:
        """The service's own share, p99 in ms: all but the broker and the model."""
        return self.ms(99, *(name for name in OWN if name in self.stages))

    def sustained(self, p99_ms: float = P99_MS) -> bool:
        """Whether ticks were sent and decided at this rate with this p99."""
        return self.reached >= REACHED * self.rate and self.ms(99) < p99_ms

    @property
    def limit(self) -> str:
        """What takes the longest, or the processors if they have no time left."""
        if not self.decided:
            return "the service: no decision came"
        if self.busy >= BUSY:
            most = max(self.cpu_s, key=lambda name: self.cpu_s[name], default="")
            return f"the processors, {self.busy:.0%} busy" + (f", most by {most}" if most else "")
        slowest = max(self.stages, key=lambda name: self.ms(99, name))
        return f"{slowest}, {self.ms(99, slowest):.1f} ms p99"


def line(best: TickTimes | None, failed: TickTimes | None = None, what: str = "") -> str:
    """The last line of a measurement.

    Args:
        best: at the highest rate that was sustained.
        failed: at the lowest that was not; None: `best` says what limits.
        what: before the line, for example `direct, in process`.
    """
    begin = f"{what}: " if what else ""
    last = failed or best
    assert last is not None, "nothing was measured"  # noqa: S101
    limit = last.limit
    if failed is not None:
        limit += f" at {failed.rate:,.0f}/s"
    if best is None:
        return f"{begin}sustained none of the rates, p99 {last.ms(99):.2f} ms, limited by {limit}"
    return (
        f"{begin}sustained {best.rate:,.0f} ticks/s, p99 {best.ms(99):.2f} ms, limited by {limit}"
    )


def search(
    measure: Callable[[float], TickTimes], start: float, most: float, p99_ms: float = P99_MS
) -> tuple[TickTimes | None, TickTimes | None]:
    """The highest rate that is sustained: doubled until one is not, then bisected.

    Args:
        measure: one rate in ticks a second.
        start: first rate; halved up to three times if it is not sustained.
        most: no rate above.
        p99_ms: what a sustained rate's p99 stays below.

    Returns:
        At the highest rate that was sustained, at the lowest that was not; None where there is
        none.
    """
    best: TickTimes | None = None
    failed: TickTimes | None = None
    rate = min(start, most)
    while failed is None or best is None:
        found = measure(rate)
        if found.sustained(p99_ms):
            best = found
            if rate >= most or failed is not None:
                break
            rate = min(2 * rate, most)
        else:
            failed = found
            if best is not None or rate <= start / 8:
                break
            rate /= 2
    while best is not None and failed is not None and failed.rate > STEP * best.rate:
        found = measure(round((best.rate * failed.rate) ** 0.5))
        if found.sustained(p99_ms):
            best = found
        else:
            failed = found
    return best, failed


def matrix(rows: Sequence[tuple[int, ...]], stages: int = len(STAGES)) -> NDArray[np.int64]:
    """Stage times of N decisions, (N, S)."""
    return np.array(rows, np.int64).reshape(len(rows), stages)
