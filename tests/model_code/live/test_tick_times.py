import numpy as np
import pytest

from model_code.errors import DataError
from model_code.live.messages import Decision, Latency
from model_code.live.tick_times import STAGES, TickTimes, line, matrix, search, stage_times

MS = 1_000_000
LATENCY = Latency(decode=1 * MS, features=2 * MS, queue=3 * MS, inference=4 * MS, publish=5 * MS)


def decision(**changes: object) -> Decision:
    values: dict[str, object] = {"local_ns": 100 * MS, "received_ns": 110 * MS}
    values |= {"decided_ns": 130 * MS}
    return Decision(
        symbol="A", sequence=1, session=0, exchange_ns=None, model_version=1, probability=0.5,
        threshold=0.5, decision=True, side=None, latency=LATENCY, **(values | changes),  # type: ignore[arg-type]
    )  # fmt: skip


def times(rate: float, p99_ms: float, **changes: object) -> TickTimes:
    """All decisions took `p99_ms`, most of it in `broker in`."""
    rows = [(round(p99_ms * MS) - 6, 1, 1, 1, 1, 1, 1)] * 100
    values: dict[str, object] = {"seconds": 10.0, "ticks": int(10 * rate), "quotes": int(9 * rate)}
    values |= {"stage_NS": matrix(rows), "sent_late_N": np.zeros(1, np.int64)}
    return TickTimes(rate=rate, **(values | changes))  # type: ignore[arg-type]


def test_the_stages_add_up_to_the_time_since_the_tick_was_due() -> None:
    found = stage_times(decision(), 150 * MS)
    assert dict(zip(STAGES, found, strict=True)) == {
        "broker in": 10 * MS, "decode": 1 * MS, "features": 2 * MS, "queue": 13 * MS,
        "inference": 4 * MS, "publish": 5 * MS, "broker out": 15 * MS,
    }  # fmt: skip
    assert sum(found) == 50 * MS


def test_a_decision_without_stamps_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="received_ns"):
        stage_times(decision(received_ns=None), 0)


def test_percentiles_are_those_of_the_sum_of_the_stages() -> None:
    rows = [(number * MS, MS, 0, 0, 0, 0, 0) for number in range(101)]
    one = times(200, 1, stage_NS=matrix(rows))
    assert one.ms(50) == 51.0
    assert one.ms(99, "broker in") == 99.0
    assert one.ms(99, "broker in", "decode") == one.ms(99) == 100.0
    assert one.own_ms == 1.0
    assert np.isnan(times(200, 1, stage_NS=matrix([])).ms(99))


def test_a_rate_is_sustained_if_it_was_reached_with_a_small_p99() -> None:
    assert times(200, 9.9).sustained()
    assert not times(200, 10.0).sustained()
    assert not times(200, 1.0, ticks=1900).sustained()
    assert not times(200, 1.0, stage_NS=matrix([])).sustained()


def test_the_line_says_what_limits() -> None:
    best, failed = times(800, 9.0), times(900, 20.0)
    assert line(best, failed) == (
        "sustained 800 ticks/s, p99 9.00 ms, limited by broker in, 20.0 ms p99 at 900/s"
    )
    assert line(best, None, "direct").startswith("direct: sustained 800 ticks/s, p99 9.00 ms, ")
    assert line(None, failed).startswith("sustained none of the rates, p99 20.00 ms, ")
    busy = times(900, 20.0, busy=0.95, cpu_s={"broker": 1.0, "triton": 7.0})
    assert busy.limit == "the processors, 95% busy, most by triton"


@pytest.mark.parametrize("limit", [130.0, 999.0, 1000.0, 5000.0])
def test_the_search_ends_beside_the_limit(limit: float) -> None:
    best, failed = search(lambda rate: times(rate, 5.0 if rate <= limit else 50.0), 400, 6400)
    assert best is not None
    assert failed is not None
    assert best.rate <= limit < failed.rate
    assert failed.rate <= 1.07 * best.rate


def test_the_search_says_if_every_rate_or_none_is_sustained() -> None:
    best, failed = search(lambda rate: times(rate, 5.0), 400, 6400)
    assert best is not None
    assert (best.rate, failed) == (6400, None)
    best, failed = search(lambda rate: times(rate, 50.0), 400, 6400)
    assert failed is not None
    assert (best, failed.rate) == (None, 50)
