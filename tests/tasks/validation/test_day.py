import datetime as dt
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from model_code.errors import DataError, SchemaError
from model_code.market import quality
from model_code.market.measures import derive
from model_code.market.notes import DayNotes, TradeNotes
from model_code.market.profiles import PROFILES
from model_code.market.readers.hive import HiveStore
from model_code.market.schema import TICKS, InstrumentDay, moment
from model_code.settings import ValidationSpec
from tasks.validation import expectations
from tasks.validation.day import DayValidation, validate_day
from tasks.validation.figures import duration
from tasks.validation.totals import SAMPLES_PER_REASON
from tests.support.faults import PLANTED, ROWS, edit, put, repeat, scale
from tests.support.market import DATES, SYMBOLS, epoch_ns, ticks

DAY = InstrumentDay(DATES[0], SYMBOLS[0])
SPEC = ValidationSpec()


def validate(table: pa.Table, spec: ValidationSpec = SPEC) -> DayValidation:
    return validate_day(table, DAY, spec)


def locked(rows: list[int]) -> pa.Table:
    """A day whose ask equals the bid in the given rows."""
    bids = ticks(ROWS)["bid_price"].to_pylist()

    def lock(asks: list[Any]) -> None:
        for row in rows:
            asks[row] = bids[row]

    return edit(ticks(ROWS), "ask_price", lock)


def idle(table: pa.Table, rows: list[int]) -> pa.Table:
    for name in ("buy_volume", "sell_volume", "trade_count"):
        table = put(table, name, rows, 0)
    return table


def trade_notes(**changes: int) -> DayNotes:
    at = dt.datetime(2024, 8, 8, 12, tzinfo=dt.UTC)
    values = {"rows": 1000, "repeated": 0, "empty": 0, "bad": 0, "outside": 0, "bought": 500}
    counts = TradeNotes(first=at, last=at, sold=500, aggressor="flag", **values | changes)
    return DayNotes(trades=counts)


def test_a_good_day_passes_every_named_expectation() -> None:
    found = validate(ticks(ROWS))
    report = found.report
    assert report.passed
    assert report.failures == report.remedies == ()
    assert all(item.success for item in report.expectations)
    names = [item.name for item in report.expectations]
    assert len(names) == len(set(names)) == 23
    assert {item.level for item in report.expectations} == {"schema", "row", "day"}
    assert (report.rows, report.clean, report.quarantined) == (ROWS, ROWS, 0)
    assert sum(rows for _, rows, _ in report.minutes) == ROWS
    assert found.clean.equals(ticks(ROWS))
    assert quality.DayReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize("reason", sorted(PLANTED))
def test_great_expectations_and_the_quarantine_agree_on_counts(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expectations, "CHUNK_ROWS", 800)  # faults of one rule in several chunks
    table, planted = PLANTED[reason]
    rules = quality.row_rules(SPEC)
    found = expectations.row_outcomes(derive(table, DAY), rules)
    counts = {name: outcome.unexpected for name, outcome in found.items() if outcome.unexpected}
    assert counts == {reason: planted}
    assert [name for name, outcome in found.items() if not outcome.success] == [reason]


def test_all_counts_agree_if_every_rule_is_broken() -> None:
    table = repeat(ticks(ROWS), [1300, 1301])
    faults = [
        ("symbol", "other"), ("bid_price", None), ("ask_price", float("nan")),
        ("ask_price", -1.0), ("ask_price", 1e300), ("bid_price", float("inf")),
        ("bid_size", -1.0), ("ask_size", float("nan")), ("last_trade", 1e-9), ("vwap", 1e9),
        ("sell_volume", -2.0), ("buy_volume", None), ("trade_count", None), ("label", 9),
        ("timestamp", None), ("timestamp", 0), ("timestamp", lambda ns: ns - 10**9),
    ]  # fmt: skip
    for i, (name, value) in enumerate(faults):
        table = put(table, name, [i, 500 + 3 * i, 501 + 3 * i], value)
    table = scale(table, [1100], 1.3)
    table = put(table, "ask_price", [1200], table["bid_price"][1200].as_py())
    found = expectations.row_outcomes(derive(table, DAY), quality.row_rules(SPEC))
    _, _, counts = quality.quarantine(table, DAY, SPEC)
    assert {name: item.unexpected for name, item in found.items() if item.unexpected} == counts
    assert set(counts) == {rule.name for rule in quality.row_rules(SPEC)}


def test_missing_column_fails_at_once() -> None:
    with pytest.raises(SchemaError, match="column 'bid_price' is missing: expected double, found"):
        validate(ticks(ROWS).drop_columns(["bid_price"]))


def test_wrong_dtype_fails_at_once() -> None:
    table = ticks(ROWS)
    texts = pa.array(["dear"] * ROWS)
    with pytest.raises(SchemaError, match="'ask_price' has the wrong type: expected double, fou"):
        validate(table.set_column(3, "ask_price", texts))


def test_empty_day_fails_at_once() -> None:
    with pytest.raises(DataError, match=r"AAA.test 2024-08-08 is empty: 0 rows, expected at least"):
        validate(TICKS.empty_table())


MESSAGES = {
    "missing_bid": (lambda t: put(t, "bid_price", list(range(40)), float("nan")), "missing_bid 40"),
    "crossed_quote": (
        lambda t: put(t, "ask_price", list(range(0, 100, 4)), lambda ask: ask - 0.1),
        "25 of 1,500 rows (1.67%) at fault: crossed_quote 25",
    ),
    "clock_back": (
        lambda t: put(t, "timestamp", list(range(600, 620)), lambda ns: ns - 10**10),
        "clock_back 20",
    ),
    "bad_label": (lambda t: put(t, "label", list(range(50)), 2), "bad_label 50"),
    "price_jump": (lambda t: scale(t, list(range(100, 1500, 60)), 1.3), "price_jump 24"),
    "outside_session": (
        lambda t: put(t, "timestamp", list(range(200)), epoch_ns(dt.date(2023, 1, 1))),
        "outside_session 200",
    ),
}


@pytest.mark.parametrize("reason", sorted(MESSAGES))
def test_too_many_faults_fail_the_day_with_counts_and_the_setting_to_change(reason: str) -> None:
    plant, words = MESSAGES[reason]
    found = validate(plant(ticks(ROWS)))
    assert not found.report.passed
    assert set(pc.unique(found.quarantined["reason"]).to_pylist()) == {reason}
    with pytest.raises(DataError) as raised:
        found.report.require_passed()
    assert words in raised.value.what
    assert "expected at most 1%" in raised.value.what
    assert raised.value.where == "AAA.test 2024-08-08"
    assert raised.value.remedy.startswith(f"{reason}: ")
    assert "raise --max-fault-fraction to 0." in raised.value.remedy


def test_repeats_are_left_out_counted_and_no_fault() -> None:
    rows = list(range(0, 90, 3))
    table = repeat(idle(ticks(ROWS), rows), rows)
    found = validate(table)
    report = found.report
    assert report.passed
    assert (report.rows, report.clean, report.quarantined) == (ROWS + 30, ROWS, 0)
    assert (report.repeated, report.faults) == (30, {})
    assert found.clean.equals(idle(ticks(ROWS), rows))


def test_a_faulty_row_and_its_repeat_count_once_in_every_part_of_the_report() -> None:
    table = put(idle(ticks(ROWS), [5]), "label", [5], 2)
    report = validate(repeat(table, [5])).report
    item = next(item for item in report.expectations if item.name == "bad_label")
    assert report.faults == {"bad_label": 1}
    assert (item.unexpected, report.quarantined, report.repeated) == (1, 1, 1)
    assert sum(faults for _, _, faults in report.minutes) == 1


def test_a_day_with_3_percent_locked_quotes_passes_under_us_equities_and_fails_under_crypto() -> (
    None
):
    table = locked(list(range(0, ROWS, 33))[:45])
    crypto = validate(table, ValidationSpec(profile="crypto")).report
    assert crypto.failures == (
        "fault_fraction: 45 of 1,500 rows (3.00%) at fault: locked_quote 45, expected at most 1%",
    )
    for spec, stated in ((ValidationSpec(profile="us-equities"), None), (SPEC, "us-equities")):
        found = validate_day(table, DAY, spec, stated=stated)  # type: ignore[arg-type]
        report = found.report
        assert report.passed
        assert report.profile == "us-equities"
        assert report.faults == {"locked_quote": 45}
        assert (report.quarantined, report.clean) == (45, ROWS - 45)
        item = next(item for item in report.expectations if item.name == "locked_quote_share")
        assert (item.level, item.success) == ("day", True)
        assert item.observed == "45 of 1,500 rows (3.00%)"
        assert item.limit == "at most 10% (profile us-equities)"


def test_a_rule_broken_beyond_its_tolerance_fails_the_day_and_is_no_fault_of_the_others() -> None:
    report = validate(locked(list(range(0, ROWS, 9))), ValidationSpec(profile="us-equities")).report
    assert report.failures == (
        "locked_quote_share: 167 of 1,500 rows (11.13%), expected at most 10% "
        "(profile us-equities)",
    )
    assert report.remedies[0].startswith("locked_quote: ")
    assert report.remedies[0].endswith("or choose another --profile")


def test_every_tolerance_of_a_profile_is_a_day_expectation() -> None:
    for name, profile in PROFILES.items():
        report = validate(ticks(ROWS), ValidationSpec(profile=name)).report
        shares = {item.name for item in report.expectations if item.name.endswith("_share")}
        assert shares == {f"{rule}_share" for rule in profile.tolerance}


def test_the_remedy_names_the_rule_that_failed_the_day_not_a_more_frequent_tolerated_one() -> None:
    table = put(locked(list(range(0, ROWS, 20))), "label", list(range(30)), 2)
    report = validate(table, ValidationSpec(profile="us-equities")).report
    assert report.faults == {"locked_quote": 75, "bad_label": 30}
    assert report.failures == (
        "fault_fraction: 30 of 1,500 rows (2.00%) at fault: bad_label 30, expected at most 1%",
    )
    assert report.remedies[0].startswith("bad_label: ")


@pytest.mark.parametrize(
    ("rows", "advice"), [(299, "raise --max-fault-fraction to 0.2 "), (300, "to 0.2 "), (301, "")]
)
def test_remedies_never_advise_to_accept_more_than_a_fifth_of_the_rows(
    rows: int, advice: str
) -> None:
    report = validate(put(ticks(ROWS), "label", list(range(rows)), 2)).report
    (remedy,) = report.remedies
    assert remedy.startswith("bad_label: ")
    assert advice in remedy
    assert ("--max-fault-fraction" in remedy) == bool(advice)


def test_mostly_prices_at_or_below_zero_are_named_as_unsupported() -> None:
    table = ticks(ROWS)
    for name in ("bid_price", "ask_price", "last_trade", "vwap"):
        table = put(table, name, list(range(800)), lambda value: -value)
    report = validate(table).report
    assert "prices at or below zero are unsupported: leave this instrument out (--instrument)" in (
        report.remedies
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (73.21, "73.21 s"),
        (119.9, "119.9 s"),
        (120.0, "2 min 0 s"),
        (725.4, "12 min 5 s"),
        (3599.0, "59 min 59 s"),
        (3599.9, "1 h 0 min"),
        (10_740.0, "2 h 59 min"),
        (86_399.0, "24 h 0 min"),
    ],
)
def test_duration_is_written_in_the_largest_useful_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("bad", "outside", "passed"), [(4, 6, True), (5, 6, False)])
def test_too_many_bad_or_outside_trades_fail_the_day(bad: int, outside: int, passed: bool) -> None:
    notes = trade_notes(bad=bad, outside=outside)
    report = validate_day(ticks(ROWS), DAY, SPEC, notes=notes).report
    assert report.passed == passed
    assert report.notes == notes
    if not passed:
        assert report.failures == (
            "trade_faults: 6 of 1,000 trades lie outside the quotes' hours, 5 are bad, "
            "expected at most 1% of the trades",
        )
        assert report.remedies[0].startswith("check that trades and quotes are of one instrument")
    tolerant = ValidationSpec(max_trade_fault_fraction=0.011)
    assert validate_day(ticks(ROWS), DAY, tolerant, notes=notes).report.passed


def test_a_day_without_trades_has_no_expectation_of_trades() -> None:
    for notes in (DayNotes(), trade_notes(rows=0)):
        report = validate_day(ticks(ROWS), DAY, SPEC, notes=notes).report
        assert "trade_faults" not in {item.name for item in report.expectations}


def test_the_report_has_the_first_and_last_clean_row() -> None:
    table = put(ticks(ROWS), "label", [0, ROWS - 1], 2)
    report = validate(table).report
    stamps = table["timestamp"].cast(pa.timestamp("us", "UTC"), safe=False).to_pylist()
    assert (report.first, report.last) == (stamps[1], stamps[-2])


def test_a_break_of_the_session_is_no_gap() -> None:
    table = put(ticks(ROWS), "timestamp", list(range(800, ROWS)), lambda ns: ns + 3600 * 10**9)
    before, after = (moment(table["timestamp"].cast(pa.int64())[row].as_py()) for row in (799, 800))
    edge = dt.timedelta(seconds=20)
    for silence, passed in (
        ((before + edge, after - edge), True),
        ((before - edge, after + edge), True),
        ((before + 4 * edge, after), False),
    ):
        report = validate_day(table, DAY, SPEC, silences=(silence,)).report
        assert report.passed == passed, silence
    assert not validate(table).report.passed


def test_few_faults_are_quarantined_and_the_day_passes() -> None:
    table, planted = PLANTED["crossed_quote"]
    found = validate(table)
    item = next(item for item in found.report.expectations if item.name == "crossed_quote")
    assert found.report.passed
    assert (item.success, item.unexpected) == (False, planted)
    assert found.report.faults == {"crossed_quote": planted}
    assert sum(faults for _, _, faults in found.report.minutes) == planted
    found.report.require_passed()


def test_a_long_gap_fails_the_day() -> None:
    table = put(ticks(ROWS), "timestamp", list(range(800, ROWS)), lambda ns: ns + 90 * 10**9)
    report = validate(table).report
    assert report.failures[0].startswith("maximum_gap: silent for 90.")
    assert report.failures[0].endswith("UTC, expected at most 60 s")
    assert "raise validation.maximum_gap_s" in report.remedies[0]
    assert validate(table, ValidationSpec(maximum_gap_s=120.0)).report.passed


def test_a_gap_left_by_quarantined_rows_counts() -> None:
    span = ticks(4000)
    table = put(span, "bid_size", list(range(1000, 3000)), -1.0)
    spec = ValidationSpec(max_fault_fraction=0.6)
    assert [text.split(":")[0] for text in validate(table, spec).report.failures] == ["maximum_gap"]


def test_too_few_rows_fail_the_day() -> None:
    report = validate(ticks(999)).report
    assert report.failures == ("minimum_rows: 999 clean rows, expected at least 1,000",)
    assert report.remedies == ("fetch the whole day, or lower validation.minimum_rows",)


def test_a_day_without_one_clean_row_is_reported() -> None:
    found = validate(put(ticks(ROWS), "symbol", list(range(ROWS)), "other"))
    assert found.clean.num_rows == 0
    assert [text.split(":")[0] for text in found.report.failures] == [
        "fault_fraction",
        "minimum_rows",
    ]
    assert len(found.report.samples) == SAMPLES_PER_REASON


def test_samples_show_the_first_rows_of_each_reason_once() -> None:
    table = put(ticks(ROWS), "label", list(range(0, 60, 2)), 7)
    table = put(table, "bid_size", [0, 1, 1400], 0.0)
    samples = validate(table).report.samples
    assert [sample.row for sample in samples] == sorted({*range(0, 40, 2), 0, 1, 1400})
    assert samples[0].reason == "size_not_positive;bad_label"
    assert samples[0].values["label"] == "7"
    assert samples[0].values["timestamp"].startswith("2024-08-08 12:00:00.")


def test_an_expectation_that_cannot_be_evaluated_is_an_error() -> None:
    frame = derive(ticks(20), DAY).drop("wide_spread_bps").to_pandas()
    rules = [rule for rule in quality.row_rules(SPEC) if rule.name == "spread_too_wide"]
    with pytest.raises(DataError, match="spread_too_wide could not be evaluated"):
        expectations.evaluate(frame, [expectations.row_expectation(rule) for rule in rules])


def test_schema_expectations_detect_a_difference() -> None:
    other = TICKS.set(4, pa.field("bid_size", pa.int64()))
    found = expectations.schema_outcomes(other)
    assert found["columns"].success
    assert not found["column_types"].success
    assert found["column_types"].unexpected == 1
    assert not expectations.schema_outcomes(TICKS.remove(0))["columns"].success


def hive(uri: str) -> HiveStore:
    return HiveStore(uri, fsspec.filesystem("file"), uri)


def test_every_real_binance_day_passes_without_quarantine(binance: str) -> None:
    store = hive(binance)
    for day in store.catalog():
        table = store.read(day)
        clean, _, counts = quality.quarantine(table, day, SPEC)
        assert counts == {}, day
        assert clean.num_rows == table.num_rows > 0
    report = validate_day(table, day, SPEC).report
    assert report.passed
    assert report.rows == 19_751


def test_a_venue_with_crossed_quotes_fails_with_counts(fx: str) -> None:
    store, day = hive(fx), InstrumentDay(dt.date(2014, 5, 1), "EURUSD.fxcm")
    found = validate_day(store.read(day), day, SPEC, stated="crypto")
    assert found.report.failures == (
        "fault_fraction: 3,442 of 17,428 rows (19.75%) at fault: crossed_quote 1,538, "
        "locked_quote 1,904, expected at most 1%",
    )
    assert "raise --max-fault-fraction to 0.198" in found.report.remedies[0]
    wider = ValidationSpec(max_fault_fraction=0.198)
    tolerant = validate_day(store.read(day), day, wider, stated="crypto")
    assert tolerant.report.passed
    assert tolerant.clean.num_rows == 17_428 - 3_442


def test_quotes_without_sizes_and_trades_are_presumed_fx(fx: str) -> None:
    store, day = hive(fx), InstrumentDay(dt.date(2014, 5, 1), "EURUSD.fxcm")
    loaded = store.load(day)
    report = validate_day(loaded.ticks, day, SPEC, notes=loaded.notes).report
    assert report.profile == "fx"
    assert report.passed


def test_every_real_fx_day_passes_under_the_fx_profile_with_its_crossed_rows_set_aside(
    fx: str,
) -> None:
    store = hive(fx)
    for day in store.catalog():
        loaded = store.load(day)
        report = validate_day(
            loaded.ticks, day, ValidationSpec(profile="fx"), notes=loaded.notes
        ).report
        assert report.passed, report.failures
        crossed = report.faults.get("crossed_quote", 0)
        assert (crossed > 0) == (day.symbol == "EURUSD.fxcm")
        assert report.rows == report.clean + report.quarantined + report.repeated
