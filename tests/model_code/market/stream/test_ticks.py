import pytest

from model_code.market.notes import DayNotes, Loaded
from model_code.market.schema import InstrumentDay
from model_code.market.stream.rows import CHUNK_ROWS
from model_code.market.stream.ticks import TableTicks
from tests.support.faults import PLANTED, put
from tests.support.market import DATES, SYMBOLS, ticks

DAY = InstrumentDay(DATES[0], SYMBOLS[0])


@pytest.mark.parametrize("size", [1, 7, None])
def test_a_day_in_memory_has_the_same_facts_in_chunks(size: int | None) -> None:
    table, _ = PLANTED["clock_back"]
    stream = TableTicks(table, DayNotes(), size)
    rows, facts = stream.measure(DAY)
    assert rows == table.num_rows == sum(chunk.num_rows for chunk in stream.chunks())
    assert facts.late.row_K.tolist() == [40, 41]
    _, expected = TableTicks(table, DayNotes()).measure(DAY)
    assert facts.tightest_bps == expected.tightest_bps > 0
    assert facts.first_anchor == expected.first_anchor
    assert (facts.lowest_anchor, facts.highest_anchor) == (
        expected.lowest_anchor, expected.highest_anchor,
    )  # fmt: skip


def test_sizes_and_trades_are_known() -> None:
    table = ticks(20)
    stream = TableTicks.of(Loaded(table, DayNotes()))
    assert (stream.sized, stream.traded) == (True, False)
    for name in ("bid_size", "ask_size"):
        table = put(table, name, list(range(20)), None)
    assert not TableTicks(table, DayNotes(), CHUNK_ROWS).sized
