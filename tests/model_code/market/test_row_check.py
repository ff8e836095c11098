"""The rules for a single row against those for a whole day."""

import math

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.features.kernel import TICK
from model_code.market.measures import derive
from model_code.market.quality import find_faults, row_rules
from model_code.market.row_check import LOCAL, WIDE, RowCheck, local_rules
from model_code.market.schema import TICKS, InstrumentDay
from model_code.settings import ValidationSpec
from tests.support.market import DATES, SYMBOLS, epoch_ns

SPEC = ValidationSpec()
DAY = InstrumentDay(DATES[0], SYMBOLS[0])
VALUE = st.sampled_from(
    [1.0, 1.02, 100.0, 100.5, 100.05, 101.5, 103.0, 0.0, -1.0, math.inf, -math.inf, math.nan]
)


def derived(rows: list[tuple[float, ...]], rules: tuple[str, ...]) -> list[str | None]:
    """The first rule of `rules` that each row breaks, as validation finds it."""
    names = list(TICK.names or ())
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    table = {
        "timestamp": pa.array(columns["timestamp"], pa.timestamp("ns", "UTC")),
        "symbol": [SYMBOLS[0]] * len(rows),
        "label": pa.nulls(len(rows), pa.int8()),
        "trade_count": pa.array(map(int, columns["trade_count"]), pa.int32()),
    }
    for name in names:
        nullable = TICKS.field(name).nullable
        missing = [math.isnan(value) and nullable for value in columns[name]]
        table.setdefault(name, pa.array(columns[name], mask=pa.array(missing)))
    ticks = pa.table({name: table[name] for name in TICKS.names}, schema=TICKS)
    chosen = tuple(rule for rule in row_rules(SPEC) if rule.name in rules)
    measures = derive(ticks, DAY)
    faults = find_faults(measures.with_columns(repeat=0), chosen)
    return [
        next((name for name in faults.columns if faults[name][place]), None)
        for place in range(len(rows))
    ]


@st.composite
def row(draw: st.DrawFn) -> tuple[float, ...]:
    bid, ask = (draw(st.just(100.0 + place) | VALUE) for place in (0, 0.05))
    prices_and_sizes = [draw(st.just(math.nan) | VALUE) for _ in range(5)]
    flows = [draw(st.sampled_from([0.0, 2.0, -1.0, math.inf])) for _ in range(2)]
    count = draw(st.sampled_from([0, 3, -1]))
    return epoch_ns(DATES[0]), bid, ask, *prices_and_sizes, *flows, count


@settings(max_examples=60)
@given(st.lists(row(), min_size=1, max_size=12))
def test_a_row_breaks_the_same_rule_alone_and_in_its_day(rows: list[tuple[float, ...]]) -> None:
    check = RowCheck(SPEC)
    alone = [check.reason(one, math.inf) for one in rows]  # no spread is wide yet
    assert alone == derived(rows, LOCAL)


def test_every_local_rule_has_a_row_that_breaks_it() -> None:
    assert [rule.name for rule in local_rules(SPEC)] == list(LOCAL)
    sound = (epoch_ns(DATES[0]), 100.0, 100.05, 1.0, 1.0, 100.0, 100.0, 0.5, 0.0, 0.0, 0)
    changes = {
        "missing_bid": (1, math.nan), "missing_ask": (2, math.nan), "not_finite": (7, math.inf),
        "price_not_positive": (6, 0.0), "size_not_positive": (3, 0.0), "flow_negative": (8, -1.0),
        "crossed_quote": (1, 100.1), "locked_quote": (1, 100.05),
    }  # fmt: skip
    assert set(changes) == set(LOCAL)
    check = RowCheck(SPEC)
    assert check.reason(sound, 5.0) is None
    for name, (place, value) in changes.items():
        broken = (*sound[:place], value, *sound[place + 1 :])
        assert check.reason(broken, 5.0) == name


def test_a_wide_spread_is_one_of_many_tightest_ones() -> None:
    check = RowCheck(ValidationSpec(maximum_spread_bps=50.0))
    wide = (epoch_ns(DATES[0]), 100.0, 101.0, *[math.nan] * 5, 0.0, 0.0, 0)
    assert check.reason(wide, 1.0) == WIDE
    assert check.reason(wide, 25.0) is None
    narrow = (epoch_ns(DATES[0]), 100.0, 100.4, *[math.nan] * 5, 0.0, 0.0, 0)
    assert check.reason(narrow, 1.0) is None
