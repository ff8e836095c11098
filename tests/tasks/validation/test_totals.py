import polars as pl
import pyarrow as pa
import pytest

from model_code.market.measures import Measures
from model_code.market.notes import DayNotes
from model_code.market.profiles import limits
from model_code.market.quality import find_faults, quarantine, row_rules
from model_code.market.schema import InstrumentDay
from model_code.market.stream.ticks import TableTicks
from model_code.settings import ValidationSpec
from tasks.validation import expectations
from tasks.validation.totals import SAMPLES_PER_REASON, RowTotals, Samples
from tests.support.faults import PLANTED, ROWS, put
from tests.support.market import DATES, SYMBOLS, ticks

DAY = InstrumentDay(DATES[0], SYMBOLS[0])
BOUNDS = limits(ValidationSpec())
RULES = row_rules(BOUNDS)


def totals(table: pa.Table, size: int) -> RowTotals:
    stream = TableTicks(table, DayNotes(), size)
    measures, found = Measures(stream.measure(DAY)[1], DAY), RowTotals(RULES, BOUNDS)
    for chunk in stream.chunks():
        derived = measures.derive(chunk)
        found.add(derived, find_faults(derived, RULES))
    return found


@pytest.mark.parametrize("reason", ["missing_bid", "bad_label", "clock_back", "price_jump"])
def test_great_expectations_counts_every_fault_on_the_rows_that_decide(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expectations, "CHUNK_ROWS", 20)
    table, planted = PLANTED[reason]
    found = totals(table, 500)
    assert found.faults == {reason: planted}
    results = {item.name: item for item in found.results()}
    assert {name for name, item in results.items() if not item.success} == {reason}
    assert results[reason].unexpected == planted


def test_great_expectations_finds_a_fault_that_the_rules_miss() -> None:
    stream = TableTicks(PLANTED["bad_label"][0], DayNotes())
    derived = Measures(stream.measure(DAY)[1], DAY).derive(next(stream.chunks()))
    found = RowTotals(RULES, BOUNDS)
    found.add(derived, find_faults(derived, RULES).with_columns(bad_label=pl.lit(value=False)))
    results = {item.name: item for item in found.results()}
    assert found.faults == {}
    assert not results["bad_label"].success


def test_samples_are_the_first_rows_of_each_reason_in_row_order() -> None:
    table = put(put(ticks(ROWS), "label", list(range(0, 60, 2)), 7), "bid_size", [1, 900], 0.0)
    _, quarantined, _ = quarantine(table, DAY, ValidationSpec())
    for size in (1, 7, 1000):
        samples = Samples()
        for at in range(0, quarantined.num_rows, size):
            samples.add(quarantined.slice(at, size))
        rows = [sample.row for sample in samples.found]
        assert rows == sorted({*range(0, 2 * SAMPLES_PER_REASON, 2), 1, 900})
