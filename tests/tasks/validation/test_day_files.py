"""A day gives the same verdict, the same figures and the same bytes for every size of chunk."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_code.market.join import FoldedDay
from model_code.market.notes import DayNotes
from model_code.market.quality import DayReport, row_rules
from model_code.market.stream.rows import TableRows
from model_code.settings import ValidationSpec
from tasks.validation import day_files, expectations
from tasks.validation.day import validate_ticks
from tasks.validation.day_files import day_file
from tasks.validation.expectations import Outcome
from tests.support.faulty_day import DAY, faulty_day

SPEC = ValidationSpec()
Found = tuple[DayReport, list[str], pa.Table]


def validated(
    quotes: pa.Table,
    trades: pa.Table | None,
    size: int | None,
    folder: Path,
    own: int | None = None,
) -> Found:
    """The report, the hashes of the files of clean and of quarantined rows, and the ticks."""
    stream = FoldedDay(
        TableRows(quotes, size),
        None if trades is None else TableRows(trades, own or size),
        DAY.symbol,
        DayNotes(),
        where="quotes",
        trades_where="trades",
        trade_band_bps=200.0,
    )
    paths = [folder / "clean.parquet", folder / "quarantine.parquet"]
    with day_file(paths[0]) as clean, day_file(paths[1]) as quarantined:
        report = validate_ticks(stream, DAY, SPEC, clean=clean.write, quarantined=quarantined.write)
    ticks = pa.concat_tables(stream.chunks()).combine_chunks()
    return report, [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths], ticks


def bytes_of(table: pa.Table) -> bytes:
    """NaN equals NaN in bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def assert_same(found: Found, expected: Found) -> None:
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    assert bytes_of(found[2]) == bytes_of(expected[2])


@pytest.mark.parametrize("kind", range(8))
def test_every_size_of_chunk_gives_the_same_report_and_the_same_bytes(
    kind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day_files, "GROUP_ROWS", 100)
    quotes, trades = faulty_day(kind, 400, kind=kind)
    whole = validated(quotes, trades, None, tmp_path)
    assert whole[0].quarantined > 20
    assert whole[0].repeated > 5
    assert whole[0].notes.trades is not None
    assert whole[0].notes.trades.bad > 0
    assert whole[0].notes.trades.outside > 0
    assert {"clock_back", "crossed_quote", "locked_quote", "missing_bid"} <= set(whole[0].faults)
    for size, own in ((7, 3), (64, 1000), (399, 2)):
        assert_same(validated(quotes, trades, size, tmp_path, own), whole)


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations takes a second a day; its part is tested above."""

    def outcomes(_: Any, rules: Any) -> dict[str, Outcome]:
        return {rule.name: Outcome(success=True, unexpected=0) for rule in rules}

    everything = {rule.name for rule in row_rules(SPEC)}

    def days(figures: Any) -> dict[str, Outcome]:
        assert everything.isdisjoint(figures)
        return {name: Outcome(success=True, unexpected=0) for name in figures}

    monkeypatch.setattr(expectations, "row_outcomes", outcomes)
    monkeypatch.setattr(expectations, "day_outcomes", days)
    same = {name: Outcome(success=True, unexpected=0) for name in ("columns", "column_types")}
    monkeypatch.setattr(expectations, "schema_outcomes", lambda _: same)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(3, 120),
    kind=st.integers(0, 8),
    size=st.sampled_from([1, 2, 3, 5, 7, 16, 50]),
    own=st.sampled_from([1, 2, 7, 1000]),
)
@pytest.mark.usefixtures("uncounted")
def test_any_faulty_day_is_the_same_in_chunks(
    tmp_path: Path, seed: int, rows: int, kind: int, size: int, own: int
) -> None:
    quotes, trades = faulty_day(seed, rows, kind=kind)
    used = None if kind == 8 else trades
    whole = validated(quotes, used, None, tmp_path)
    assert_same(validated(quotes, used, size, tmp_path, own), whole)
