import dataclasses
import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.errors import DataError
from model_code.market import measures, quality
from model_code.market.profiles import limits
from model_code.market.schema import TICKS, InstrumentDay
from model_code.settings import ValidationSpec
from tests.support.faults import PLANTED, ROWS, put, repeat, scale
from tests.support.market import DATES, SYMBOLS, epoch_ns, ticks

DAY = InstrumentDay(DATES[0], SYMBOLS[0])
SPEC = ValidationSpec()
RULES = quality.row_rules(SPEC)


@pytest.mark.parametrize("reason", sorted(PLANTED))
def test_planted_faults_are_quarantined_and_nothing_else(reason: str) -> None:
    table, planted = PLANTED[reason]
    clean, quarantined, counts = quality.quarantine(table, DAY, SPEC)
    assert counts == {reason: planted}
    assert quarantined["reason"].to_pylist() == [reason] * planted
    assert clean.num_rows == table.num_rows - planted
    again = quality.quarantine(clean, DAY, SPEC)
    assert again[2] == {}
    assert again[0].equals(clean)


def test_every_rule_has_a_planted_fault() -> None:
    # a price of 0 or less is also off the quotes or crossed: tested below, with its other reasons
    assert {rule.name for rule in RULES} == {*PLANTED, "price_not_positive"}


def test_all_reasons_of_a_row_are_listed_in_the_rules_order() -> None:
    table = put(ticks(ROWS), "ask_price", [12], -1.0)
    table = put(table, "label", [12], 3)
    _, quarantined, counts = quality.quarantine(table, DAY, SPEC)
    assert quarantined["reason"].to_pylist() == ["price_not_positive;crossed_quote;bad_label"]
    assert counts["price_not_positive"] == counts["bad_label"] == 1
    assert quarantined["row"].to_pylist() == [12]


def test_a_clean_table_passes_unchanged() -> None:
    table = ticks(ROWS)
    clean, quarantined, counts = quality.quarantine(table, DAY, SPEC)
    assert clean.equals(table)
    assert quarantined.num_rows == 0
    assert quarantined.schema.names == [*TICKS.names, "row", "reason"]
    assert counts == {}


def test_absent_optional_values_are_not_faults() -> None:
    table = ticks(ROWS)
    for field in TICKS:
        if field.nullable:
            table = put(table, field.name, list(range(ROWS)), None)
    assert quality.quarantine(table, DAY, SPEC)[2] == {}


def test_one_stray_stamp_does_not_fail_the_rest_of_the_day() -> None:
    table = put(ticks(ROWS), "timestamp", [3], epoch_ns(dt.date(2030, 1, 1)))
    assert quality.quarantine(table, DAY, SPEC)[2] == {"outside_session": 1}


def test_a_stamp_ahead_of_its_neighbours_is_faulty_and_the_rows_after_it_are_not() -> None:
    stamps = ticks(ROWS)["timestamp"].cast(pa.int64()).to_pylist()
    table = put(ticks(ROWS), "timestamp", [100], stamps[110] + 1)
    _, quarantined, counts = quality.quarantine(table, DAY, SPEC)
    assert counts == {"clock_back": 1}
    assert quarantined["row"].to_pylist() == [100]
    found = measures.derive(table, DAY)["clock_back_s"]
    assert found[100] == pytest.approx((stamps[110] + 1 - stamps[101]) / 1e9)
    assert found.sum() == found[100]


def test_a_stamp_100_ns_late_is_found_beside_a_row_without_a_stamp() -> None:
    stamps = ticks(ROWS)["timestamp"].cast(pa.int64()).to_pylist()
    table = put(put(ticks(ROWS), "timestamp", [0], None), "timestamp", [40], stamps[39] - 100)
    found = measures.derive(table, DAY)["clock_back_s"]
    assert found.sum() == pytest.approx(100e-9)
    assert quality.quarantine(table, DAY, SPEC)[2] == {"missing_timestamp": 1, "clock_back": 1}


def test_an_idle_row_equal_to_the_row_above_is_left_out_and_no_fault_even_with_nulls() -> None:
    table = put(ticks(ROWS), "bid_size", [5], None)
    order = pa.array([*range(6), 5, 5, *range(6, ROWS)], pa.int64())
    table = put(table.take(order), "trade_count", [6, 7], 0)
    table = put(put(table, "buy_volume", [6, 7], 0.0), "sell_volume", [6, 7], 0.0)
    clean, quarantined, counts = quality.quarantine(table, DAY, SPEC)
    kept = pa.array([row for row in range(ROWS + 2) if row not in (6, 7)], pa.int64())
    assert counts == {}
    assert quarantined.num_rows == 0
    assert clean.equals(table.take(kept))


@pytest.mark.parametrize(
    ("name", "value"), [("ask_size", 9.0), ("trade_count", 1), ("timestamp", lambda ns: ns + 1)]
)
def test_a_row_that_differs_from_the_row_above_or_has_trades_is_no_repeat(
    name: str, value: Any
) -> None:
    table = put(ticks(ROWS), "trade_count", [5], 0)
    table = put(put(table, "buy_volume", [5], 0.0), "sell_volume", [5], 0.0)
    order = pa.array([*range(6), 5, *range(6, ROWS)], pa.int64())
    assert [i for i, found in enumerate(measures.repeats(table.take(order))) if found] == [6]
    assert measures.repeats(put(table.take(order), name, [6], value)).sum() == 0


def test_a_faulty_row_and_its_repeat_count_once() -> None:
    table = put(repeat(put(ticks(ROWS), "label", [5], 3), [5]), "trade_count", [6], 0)
    table = put(put(table, "buy_volume", [6], 0.0), "sell_volume", [6], 0.0)
    clean, quarantined, counts = quality.quarantine(table, DAY, SPEC)
    assert counts == {"bad_label": 1}
    assert quarantined["row"].to_pylist() == [5]
    assert clean.num_rows == ROWS - 1


def with_spread(cents: float) -> pa.Table:
    """Mids of `ticks`, one spread everywhere."""
    table = ticks(ROWS)
    middle = table["bid_price"].to_numpy()
    for name, half in (("bid_price", -cents / 200), ("ask_price", cents / 200)):
        place = TICKS.get_field_index(name)
        table = table.set_column(place, TICKS.field(name), pa.array(middle + half))
    return table


@pytest.mark.parametrize("factor", [1.005, 0.995])
def test_a_jump_is_measured_in_tightest_spreads_where_the_tick_is_coarse(factor: float) -> None:
    """A move of about 50 bps: 50 volatilities of the floor, one spread of a coarse market."""
    for cents, jumps in ((1.0, {"price_jump": 1}), (50.0, {})):
        table = scale(with_spread(cents), [700], factor)
        tight = dataclasses.replace(limits(SPEC), maximum_jump_sigma=10.0)
        assert quality.quarantine(table, DAY, tight)[2] == jumps


def test_distances_up_to_five_tightest_spreads_are_ignored() -> None:
    spec = ValidationSpec(maximum_spread_bps=10.0, trade_band_bps=10.0, maximum_jump_sigma=1e6)
    table = with_spread(50.0)  # 50 bps
    bid, ask = table["bid_price"][700].as_py(), table["ask_price"][700].as_py()
    for spreads, faults in ((4.9, {}), (5.1, {"spread_too_wide": 1})):
        wide = put(table, "ask_price", [700], bid + spreads * 0.5)
        assert quality.quarantine(wide, DAY, spec)[2] == faults
    for spreads, faults in ((4.9, {}), (5.2, {"trade_off_quotes": 1})):
        off = put(table, "last_trade", [700], ask + spreads * 0.5)
        assert quality.quarantine(off, DAY, spec)[2] == faults
    for spreads, faults in ((4.5, {}), (6.0, {"vwap_off_range": 1})):
        highest = (table["bid_price"].to_numpy() + 0.25).max()
        off = put(table, "vwap", [700], highest + spreads * 0.5)
        assert quality.quarantine(off, DAY, spec)[2] == faults


def test_a_lasting_move_is_faulty_only_until_it_is_the_new_price() -> None:
    table = ticks(ROWS)
    for name in ("bid_price", "ask_price", "last_trade"):
        table = put(table, name, list(range(700, ROWS)), lambda value: value * 1.01)
    _, quarantined, counts = quality.quarantine(table, DAY, SPEC)
    rows = quarantined["row"].to_pylist()
    assert set(counts) == {"price_jump"}
    assert rows == list(range(700, 700 + len(rows)))
    assert len(rows) <= measures.ANCHOR_ROWS // 2 + 1


def test_jump_is_measured_in_rolling_volatilities() -> None:
    rng = np.random.default_rng(3)
    mid = 100 * np.exp(np.cumsum(rng.normal(0, 5e-4, ROWS)))
    table = ticks(ROWS)
    for name, values in (("bid_price", mid - 0.005), ("ask_price", mid + 0.005)):
        place = TICKS.get_field_index(name)
        table = table.set_column(place, TICKS.field(name), pa.array(values))
    found = measures.derive(table, DAY)["jump_sigma"].to_numpy()
    middle = (table["bid_price"].to_numpy() / 2) + (table["ask_price"].to_numpy() / 2)
    row = 1200
    distance = np.array(
        [
            abs(np.log(middle[i] / np.median(middle[max(0, i - 21) : i]))) * 1e4
            for i in range(150, row + 1)
        ]
    )
    expected = distance[-1] / (np.sqrt(np.pi / 2) * np.minimum(distance[-1001:-1], 20.0).mean())
    assert found[row] == pytest.approx(expected, rel=1e-9)


def test_measures_are_never_nan() -> None:
    table = ticks(ROWS)
    for i, name in enumerate(measures.FLOATS):
        table = put(table, name, [i, 100 + i], float("nan"))
        table = put(table, name, [200 + i], float("inf"))
        table = put(table, name, [300 + i], 0.0)
    frame = measures.derive(table, DAY)
    assert frame.height == ROWS
    assert frame.select(pl.col(pl.Float64).is_nan().any()).row(0) == (False,) * len(
        [kind for kind in frame.dtypes if kind == pl.Float64]
    )


@pytest.mark.parametrize("n", [1, 2, 10, 30])
def test_short_tables_are_measured(n: int) -> None:
    clean, quarantined, counts = quality.quarantine(ticks(n), DAY, SPEC)
    assert (clean.num_rows, quarantined.num_rows, counts) == (n, 0, {})


def test_limits_are_written_with_the_measure() -> None:
    texts = {rule.name: rule.limit for rule in RULES}
    assert texts["missing_bid"] == "bid_price present"
    assert texts["price_not_positive"] == "0 < lowest_price"
    assert texts["spread_too_wide"] == "wide_spread_bps <= 100"
    assert texts["bad_label"] == "0 <= label <= 1"
    strict = dataclasses.replace(RULES[0], required=False, maximum=2.0, strict=True)
    assert strict.limit == "timestamp < 2"


def test_thresholds_come_from_the_specification() -> None:
    table, planted = PLANTED["spread_too_wide"]
    wide = ValidationSpec(maximum_spread_bps=300.0, maximum_jump_sigma=1e6)
    assert planted == 2
    assert quality.quarantine(table, DAY, wide)[2] == {}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([name for name in TICKS.names if name != "symbol"]),
            st.integers(0, 199),
            st.sampled_from([None, float("nan"), float("inf"), 0, -1, 3, 1e300]),
        ),
        max_size=12,
    )
)
def test_quarantine_separates_the_rows_and_keeps_their_order(
    edits: list[tuple[str, int, float | None]],
) -> None:
    table = ticks(200, seed=1)
    for name, row, value in edits:
        is_float = TICKS.field(name).type == pa.float64()
        if not is_float and value is not None and not abs(value) < 10:
            continue
        table = put(table, name, [row], value if is_float or value is None else int(value))
    clean, quarantined, counts = quality.quarantine(table, DAY, SPEC)
    rows = quarantined["row"].to_pylist()
    kept = [row for row in range(200) if row not in set(rows)]
    assert rows == sorted(set(rows))
    assert pl.DataFrame(clean).equals(pl.DataFrame(table.take(pa.array(kept, pa.int64()))))
    assert pl.DataFrame(quarantined.select(TICKS.names)).equals(
        pl.DataFrame(table.take(pa.array(rows, pa.int64())))
    )
    named = [reason for text in quarantined["reason"].to_pylist() for reason in text.split(";")]
    assert counts == {name: named.count(name) for name in set(named)}


@settings(deadline=None, max_examples=25)
@given(
    st.dictionaries(
        st.integers(1, 398),
        st.sampled_from(["label", "bid_size", "ask_price", "timestamp", "symbol"]),
        max_size=20,
    )
)
def test_clean_rows_stay_clean(edits: dict[int, str]) -> None:
    faults = {
        "label": -1,
        "bid_size": 0.0,
        "ask_price": 0.5,
        "timestamp": epoch_ns(DATES[1]),
        "symbol": "other",
    }
    table = ticks(400, seed=2)
    for row, name in edits.items():
        table = put(table, name, [row], faults[name])
    clean, quarantined, _ = quality.quarantine(table, DAY, SPEC)
    assert quarantined["row"].to_pylist() == sorted(edits)
    again, nothing, counts = quality.quarantine(clean, DAY, SPEC)
    assert again.equals(clean)
    assert (nothing.num_rows, counts) == (0, {})


def report(**changes: Any) -> quality.DayReport:
    values: dict[str, Any] = {
        "date": DATES[0],
        "symbol": SYMBOLS[0],
        "rows": 10,
        "clean": 8,
        "quarantined": 2,
        "faults": {"bad_label": 2},
        "expectations": (),
        "passed": True,
        "failures": (),
        "remedies": (),
        "minutes": ((720, 10, 2),),
        "samples": (quality.FaultSample(row=3, reason="bad_label", values={"bid_price": "1.5"}),),
    }
    return quality.DayReport(**values | changes)


def test_report_survives_json() -> None:
    day = report()
    assert quality.DayReport.model_validate_json(day.model_dump_json()) == day
    assert day.fault_fraction == 0.2


def test_a_failed_report_raises_with_reasons_and_remedies() -> None:
    report().require_passed()
    failed = report(passed=False, failures=("too few rows",), remedies=("fetch more",))
    with pytest.raises(DataError, match=r"validation failed for AAA\.test on 2024-08-08") as raised:
        failed.require_passed()
    assert raised.value.remedy == "fetch more"
    assert "too few rows" in raised.value.what
