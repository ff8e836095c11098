import datetime as dt

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from model_code.errors import DataError, SchemaError
from model_code.market import quality
from model_code.market.hive import HiveStore
from model_code.market.measures import derive
from model_code.market.schema import TICKS, InstrumentDay
from model_code.settings import ValidationSpec
from tasks.validation import expectations
from tasks.validation.day import SAMPLES_PER_REASON, DayValidation, validate_day
from tests.support.faults import PLANTED, ROWS, put, repeat, scale
from tests.support.market import DATES, SYMBOLS, epoch_ns, ticks

DAY = InstrumentDay(DATES[0], SYMBOLS[0])
SPEC = ValidationSpec()


def validate(table: pa.Table, spec: ValidationSpec = SPEC) -> DayValidation:
    return validate_day(table, DAY, spec)


def test_a_good_day_passes_every_named_expectation() -> None:
    found = validate(ticks(ROWS))
    report = found.report
    assert report.passed
    assert report.failures == report.remedies == ()
    assert all(item.success for item in report.expectations)
    names = [item.name for item in report.expectations]
    assert len(names) == len(set(names)) == 24
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
    "duplicate": (lambda t: repeat(t, list(range(0, 90, 3))), "30 of 1,530 rows (1.96%)"),
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
    frame = derive(ticks(20), DAY).drop("spread_bps").to_pandas()
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
        assert clean.num_rows == day.rows
    report = validate_day(table, day, SPEC).report
    assert report.passed
    assert report.rows == 19_751


def test_a_venue_with_crossed_quotes_fails_with_counts(fx: str) -> None:
    store, day = hive(fx), InstrumentDay(dt.date(2014, 5, 1), "EURUSD.fxcm")
    found = validate_day(store.read(day), day, SPEC)
    assert found.report.failures == (
        "fault_fraction: 3,442 of 17,428 rows (19.75%) at fault: crossed_quote 1,538, "
        "locked_quote 1,904, expected at most 1%",
    )
    assert "raise --max-fault-fraction to 0.198" in found.report.remedies[0]
    tolerant = validate_day(store.read(day), day, ValidationSpec(max_fault_fraction=0.198))
    assert tolerant.report.passed
    assert tolerant.clean.num_rows == 17_428 - 3_442
