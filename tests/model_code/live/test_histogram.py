"""Durations in buckets: Prometheus' bounds are exact, percentiles within 5 %."""

import numpy as np
import pytest

from model_code.live.histogram import BOUNDS_MS, EDGES_NS, MS, Histogram, quantiles_ms, since


def filled(durations_ms: list[float]) -> Histogram:
    found = Histogram()
    for duration in durations_ms:
        found.add(round(duration * MS))
    return found


def test_published_bounds_count_what_is_at_most_as_long() -> None:
    durations = [0.05, 0.051, 9.999, 10.0, 10.001, 700.0, 20_000.0]
    buckets = dict(filled(durations).cumulative())
    assert set(buckets) == {*BOUNDS_MS, float("inf")}
    for bound, count in buckets.items():
        assert count == sum(duration <= bound for duration in durations), bound
    assert list(buckets.values()) == sorted(buckets.values())


def test_percentiles_are_within_five_percent() -> None:
    rng = np.random.default_rng(4)
    durations = rng.lognormal(1.0, 1.2, 20_000)
    found = quantiles_ms(filled(durations.tolist()).counts, (0.5, 0.99, 0.999))
    wanted = np.quantile(durations, (0.5, 0.99, 0.999))
    np.testing.assert_allclose(np.array(found, float), wanted, rtol=0.055)


def test_without_a_duration_there_is_no_percentile() -> None:
    assert quantiles_ms(Histogram().counts, (0.5, 0.99)) == [None, None]


@pytest.mark.parametrize(
    ("duration_ns", "wanted_ms"), [(0, EDGES_NS[0] / MS), (-5, EDGES_NS[0] / MS), (10**12, 1e4)]
)
def test_the_first_and_the_last_bucket_have_one_bound(duration_ns: int, wanted_ms: float) -> None:
    one = Histogram()
    one.add(duration_ns)
    (found,) = quantiles_ms(one.counts, (0.5,))
    assert found == pytest.approx(wanted_ms, rel=0.1)
    assert one.total_ns == max(duration_ns, 0)


def test_the_last_minute_is_the_difference_of_two_copies() -> None:
    one = filled([1.0, 2.0])
    before = list(one.counts)
    one.add(50 * MS)
    later = since(one.counts, before)
    assert sum(later) == 1
    assert quantiles_ms(later, (0.5,))[0] == pytest.approx(50, rel=0.055)
