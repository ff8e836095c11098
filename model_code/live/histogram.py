"""Durations counted in buckets: cheap to count, and good enough for percentiles.

The buckets grow by a tenth, so that a percentile is within 5 % of the true one. The bounds that are
published to Prometheus are among them.
"""

from bisect import bisect_left
from collections.abc import Sequence

MS = 1_000_000
BOUNDS_MS = (
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0,
    15.0, 20.0, 30.0, 50.0, 100.0, 500.0,
)  # fmt: skip
"""Published upper bounds: 0.05 to 50 ms, closest around the limit of 10 ms."""


def _edges() -> tuple[int, ...]:
    found = {round(bound * MS) for bound in BOUNDS_MS}
    edge = 1000.0
    while edge < 10_000 * MS:
        found.add(round(edge))
        edge *= 1.1
    return tuple(sorted(found))


EDGES_NS = _edges()
"""Upper bounds of the buckets, 1 us to 10 s; the last bucket holds what is longer."""


class Histogram:
    """Counts of durations by bucket.

    One thread counts. Another may read `counts`: its copy is of one moment.

    Attributes:
        counts: by bucket of `EDGES_NS`, and one more for what is longer.
        total_ns: of all durations.
    """

    __slots__ = ("counts", "total_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(EDGES_NS) + 1)
        self.total_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration; a negative one, of two clocks that differ, counts as 0."""
        duration_ns = max(duration_ns, 0)
        self.counts[bisect_left(EDGES_NS, duration_ns)] += 1
        self.total_ns += duration_ns

    def cumulative(self) -> list[tuple[float, int]]:
        """Durations up to each published bound: (bound in ms, count); the last is infinite."""
        counts = list(self.counts)
        found: list[tuple[float, int]] = []
        begun = total = 0
        for bound in BOUNDS_MS:
            end = bisect_left(EDGES_NS, round(bound * MS)) + 1
            total += sum(counts[begun:end])
            found.append((bound, total))
            begun = end
        return [*found, (float("inf"), total + sum(counts[begun:]))]


def since(now: Sequence[int], before: Sequence[int]) -> list[int]:
    """The counts of the time between two copies of a histogram's counts."""
    return [later - earlier for later, earlier in zip(now, before, strict=True)]


def quantiles_ms(counts: Sequence[int], shares: Sequence[float]) -> list[float | None]:
    """Quantiles in ms, each the geometric middle of its bucket; None without a duration.

    Args:
        counts: by bucket of `EDGES_NS`.
        shares: 0.5 is the median; in ascending order.
    """
    total = sum(counts)
    if not total:
        return [None] * len(shares)
    found: list[float | None] = []
    bucket, passed = -1, 0
    for share in shares:
        while passed < share * total:
            bucket += 1
            passed += counts[bucket]
        upper = EDGES_NS[min(max(bucket, 0), len(EDGES_NS) - 1)]
        lower = EDGES_NS[bucket - 1] if 0 < bucket <= len(EDGES_NS) - 1 else upper
        found.append((lower * upper) ** 0.5 / MS)
    return found
