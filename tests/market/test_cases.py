"""Every case of ../shared/cases/market, against the right value in its README."""

import datetime as dt
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.errors import DataError, MarketError, SchemaError, TicklineError
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from tests.market.judged import Judged, judge, judge_all
from tests.support.cli import tickline

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
CASES = SHARED / "cases" / "market"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases/market is absent")

D1, D2, D3 = (dt.date(2025, 3, day) for day in (3, 4, 5))
BOTH = [D1, D2]
BINANCE = "ABCUSDT.binance"
# trades, bought, sold, last vwap: of the base days
TRADED = ((600, 129.6, 139.0, 99.762), (600, 140.6, 132.2, 100.029))
QUOTES_ONLY = ((0, 0.0, 0.0, None),) * 2
ODD = {
    "BRK.B", "ABC:USDT", "ES=F", "M&M", "^IDX", "ABC USD", "币安人生USDT", "ABC+D", "ABC#1",
    "1000ABC",
}  # fmt: skip


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all cases, written once by the cases' own program."""
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, CASES / "make.py", folder, "all"], check=True)
    return folder


def catalog(root: Path) -> list[tuple[dt.date, str]]:
    return [(day.date, day.symbol) for day in open_market(str(root)).catalog()]


def passed_over(root: Path) -> list[str]:
    return [item.path for item in open_market(str(root)).passed_over()]


def traded(day: Judged) -> tuple[int, float, float, float | None]:
    return *day.traded, day.vwap


def refused(root: Path, day: InstrumentDay, kind: type[TicklineError]) -> str:
    """The message with which a day is refused."""
    with pytest.raises(kind) as caught:
        judge(root, day)
    text = str(caught.value)
    assert "unexpected" not in text.lower()
    return text


# case, symbol, rows a day, what is traded each day
WHOLE = [
    ("b00_plain", BINANCE, 3000, TRADED),
    ("b03_interleaved_book", BINANCE, 3000, QUOTES_ONLY),
    ("b05_duplicate_trades", BINANCE, 3000, TRADED),
    ("b07_daily_book_monthly_trades", BINANCE, 3000, TRADED),
    ("b08_monthly_book", BINANCE, 3000, QUOTES_ONLY),
    ("b11_non_ascii", "币安人生USDT.binance", 3000, TRADED),
    ("b13_flag_digits", BINANCE, 3000, TRADED),
    ("b14_aba_same_ms", BINANCE, 3300, QUOTES_ONLY),
    ("b15b_two_csv", BINANCE, 3000, QUOTES_ONLY),
    ("b16_bom_no_header", BINANCE, 3000, QUOTES_ONLY),
    ("b22_nested_as_downloaded", BINANCE, 3000, TRADED),
    ("h00_plain", "ABC.x", 3000, TRADED),
    ("h01_true_hive", "ABC.x", 3000, TRADED),
    ("h01e_polars", "ABC.x", 3000, TRADED),
    ("h02_percent", "ABC/USDT", 3000, QUOTES_ONLY),
    ("h15_coarse_tick", "ABC.x", 6000, QUOTES_ONLY),
]
DESK = [
    "d00_plain", "d03_quoted_header", "d04_pandas_stamps", "d05_label_float", "d06_dash_date",
    "d07b_only_gz", "d08_parts", "d09_checkpoint_copy",
]  # fmt: skip


@pytest.mark.parametrize(("case", "symbol", "rows", "expected"), WHOLE, ids=[c[0] for c in WHOLE])
def test_both_days_pass_with_every_row_and_every_trade(cases, case, symbol, rows, expected):
    root = cases / case
    assert catalog(root) == [(date, symbol) for date in BOTH]
    assert passed_over(root) == []
    for day, right in zip(judge_all(root), expected, strict=True):
        assert day.report.passed, day.report.failures
        assert day.counts == (rows, rows, 0, 0)
        assert traded(day) == right
        assert day.notes.warnings == ()


@pytest.mark.parametrize("case", DESK)
def test_both_days_of_the_desk_pass_with_every_row_vwap_and_label(cases, case):
    root = cases / case
    assert catalog(root) == [(date, "ABC") for date in BOTH]
    assert passed_over(root) == []
    plain = judge_all(cases / "d00_plain")
    for day, usual, vwap in zip(judge_all(root), plain, (99.77, 100.21), strict=True):
        assert day.report.passed, day.report.failures
        assert day.counts == (3000, 3000, 0, 0)
        assert day.vwap == vwap
        assert day.summary == ()
        for name in usual.ticks.column_names:
            if name != "label":
                assert day.ticks[name].equals(usual.ticks[name]), name
        # the last ten labels of d05 are empty
        known = 2990 if case == "d05_label_float" else 3000
        assert day.ticks["label"][:known].equals(usual.ticks["label"][:known])
        assert day.ticks["label"].null_count == 3000 - known


def test_b03_the_summary_says_how_many_rows_were_put_in_order(cases):
    first, second = judge_all(cases / "b03_interleaved_book")
    assert first.summary == ("1,499 rows put in order by update id",)
    assert second.summary == ()
    time = first.ticks["timestamp"].cast(pa.int64()).to_numpy()
    assert (np.diff(time) >= 0).all()


def test_b05_the_summary_says_how_many_trades_repeat_an_id(cases):
    first, _ = judge_all(cases / "b05_duplicate_trades")
    assert first.summary == ("600 trades repeat an id, used once",)


def test_b06_the_summary_warns_of_trades_cut_short(cases):
    first, second = judge_all(cases / "b06_trades_cut_short")
    assert first.summary == ()
    assert second.traded[0] == 60
    assert second.summary == (
        "all 60 trades were sold by the aggressor: check buyer_is_maker",
        "trades from 14:00:00 to 14:00:06 UTC cover 11% of the quotes' 14:00:00 to 14:01:00",
    )


def test_b09_a_day_without_its_trades_is_refused_by_file_and_days(cases):
    root = cases / "b09_trades_one_day_only"
    assert traded(judge(root, InstrumentDay(D1, BINANCE))) == TRADED[0]
    text = refused(root, InstrumentDay(D2, BINANCE), MarketError)
    assert f"{BINANCE} has no trades on 2025-03-04, but on 2025-03-03" in text
    assert f"{root}/ABCUSDT-trades-2025-03-04.zip" in text


def test_b17_an_archive_with_only_a_header_is_refused_by_name(cases):
    root = cases / "b17_header_only"
    assert judge(root, InstrumentDay(D1, BINANCE)).report.passed
    text = refused(root, InstrumentDay(D2, BINANCE), DataError)
    assert f"{BINANCE} 2025-03-04 is empty: 0 rows" in text
    assert "ABCUSDT-bookTicker-2025-03-04.zip" in text


def test_b28b_a_damaged_deflate_stream_is_refused_by_archive_and_inner_file(cases):
    root = cases / "b28b_spoiled_start"
    assert judge(root, InstrumentDay(D1, BINANCE)).report.passed
    text = refused(root, InstrumentDay(D2, BINANCE), MarketError)
    assert "truncated or corrupt (ABCUSDT-bookTicker-2025-03-04.csv)" in text
    assert f"{root}/ABCUSDT-bookTicker-2025-03-04.zip" in text


def test_h01b_d07_a_day_in_another_spelling_is_read(cases):
    for case, symbol in (("h01b_mixed_layout", "ABC.x"), ("d07_gz_beside", "ABC")):
        root = cases / case
        assert catalog(root) == [(date, symbol) for date in (D1, D2, D3)]
        assert passed_over(root) == []
        for day in judge_all(root):
            assert day.report.passed, day.report.failures
            assert day.counts == (3000, 3000, 0, 0)


def test_h03_symbols_are_as_they_are_everywhere(cases):
    root = cases / "h03_odd_symbols"
    store = open_market(str(root))
    days = store.catalog()
    assert {(day.date, day.symbol) for day in days} == {(date, s) for date in BOTH for s in ODD}
    for day in days:
        loaded = store.load(day)
        assert loaded.ticks["symbol"].unique().to_pylist() == [day.symbol]
        assert loaded.ticks.num_rows == 3000
        assert sum(loaded.ticks["trade_count"].to_pylist()) == 600
    report = judge(store, days[-1]).report
    assert report.passed
    assert report.symbol == days[-1].symbol


def test_h05_float32_prices_are_warned_of_with_their_spacing(cases):
    for day in judge_all(cases / "h05_float32"):
        assert day.counts == (3000, 3000, 0, 0)
        (warning,) = day.summary
        assert warning.startswith("bid_price and ask_price are float32: near 123,456.")
        assert "their spacing is 0.0078, most of a tick" in warning


def test_h06_a_null_symbol_is_refused_by_file(cases):
    root = cases / "h06_null"
    for date in BOTH:
        text = refused(root, InstrumentDay(date, "ABC.x"), DataError)
        assert "the file contains a null symbol in the folder of 'ABC.x'" in text
        assert f"{root}/quotes/symbol=ABC.x/date={date}.parquet" in text


def test_h08_a_column_name_twice_is_refused_by_file_and_column(cases):
    root = cases / "h08_duplicate_columns"
    for date in BOTH:
        text = refused(root, InstrumentDay(date, "ABC.x"), SchemaError)
        assert "column 'bid_price' is there 2 times" in text
        assert f"{root}/quotes/symbol=ABC.x/date={date}.parquet" in text


def test_h08e_one_missing_size_is_refused_by_file_and_column(cases):
    root = cases / "h08e_one_size"
    text = refused(root, InstrumentDay(D1, "ABC.x"), SchemaError)
    assert "column 'ask_size' is missing, the other size is there" in text
    assert f"{root}/quotes/symbol=ABC.x/date={D1}.parquet" in text
    assert judge(root, InstrumentDay(D2, "ABC.x")).report.passed


def test_h12b_a_trade_at_price_0_is_counted_and_left_out(cases):
    first, second = judge_all(cases / "h12b_trade_zero")
    assert traded(first) == (599, 129.6, 138.8, 99.762)
    assert traded(second) == (599, 140.1, 132.2, 100.028)
    for day in (first, second):
        assert day.report.passed
        assert day.counts == (3000, 3000, 0, 0)
        assert day.summary == ("1 bad trade left out",)


def test_h12c_trades_of_size_0_are_counted_and_left_out(cases):
    first, second = judge_all(cases / "h12c_trade_zero_size")
    assert traded(first)[:3] == (400, 82.6, 95.7)
    assert traded(second)[:3] == (400, 89.1, 92.2)
    for day in (first, second):
        assert day.report.passed
        assert day.counts == (3000, 3000, 0, 0)
        assert day.summary == ("200 trades of size 0 left out",)


def test_h12f_an_empty_trades_file_is_refused_by_file_and_day(cases):
    root = cases / "h12f_empty_trades"
    assert traded(judge(root, InstrumentDay(D1, "ABC.x"))) == TRADED[0]
    text = refused(root, InstrumentDay(D2, "ABC.x"), DataError)
    assert "the trades of ABC.x on 2025-03-04 have no rows, other days have" in text
    assert f"{root}/trades/symbol=ABC.x/date={D2}.parquet" in text


def test_h14_negative_prices_are_refused_as_unsupported(cases):
    for day in judge_all(cases / "h14_negative"):
        assert not day.report.passed
        assert day.counts == (3000, 0, 3000, 0)
        with pytest.raises(DataError) as caught:
            day.report.require_passed()
        assert "prices at or below zero are unsupported" in str(caught.value)
        assert "max-fault-fraction" not in str(caught.value)


def test_h17_a_break_fails_with_its_duration_and_passes_where_it_is_known(cases):
    root = cases / "h17_lunch"
    for date in BOTH:
        day = InstrumentDay(date, "ABC.x")
        assert judge(root, day).report.failures == (
            "maximum_gap: silent for 2 h 59 min from 02:01:00 UTC, expected at most 60 s",
        )
        start, end = (
            dt.datetime.combine(date, dt.time(hour), dt.UTC) + dt.timedelta(minutes=minute)
            for hour, minute in ((2, 1), (5, 0))
        )
        found = judge(root, day, silences=((start, end),))
        assert found.report.passed, found.report.failures
        assert found.counts == (6000, 6000, 0, 0)


def test_h30_only_the_row_that_is_stamped_ahead_is_quarantined(cases):
    for day in judge_all(cases / "h30_one_stamp_ahead"):
        assert day.report.passed
        assert day.counts == (3000, 2999, 1, 0)
        assert day.report.faults == {"clock_back": 1}
        assert [sample.row for sample in day.report.samples] == [100]
        assert day.summary == ("1 row quarantined (clock_back)",)


def test_h32_symbols_with_brackets_are_printed_as_they_are(cases, tmp_path):
    root = cases / "h32_bracket_symbol"
    symbols = {"ABC[bold]", "[1]DEF"}
    assert set(catalog(root)) == {(date, symbol) for date in BOTH for symbol in symbols}
    for day in judge_all(root):
        assert day.report.passed
        assert day.counts == (3000, 3000, 0, 0)
    printed = tickline("data", "describe", "--data", root, "--picture", tmp_path / "p.png")
    assert all(symbol in printed for symbol in symbols)


def test_h33_trades_outside_the_quotes_hours_fail_with_their_number(cases):
    for day in judge_all(cases / "h33_trades_shifted"):
        assert day.traded[0] == 0
        (failure,) = day.report.failures
        assert "600 of 600 trades lie outside the quotes' hours" in failure


def test_d10_a_file_with_only_a_header_is_named_as_passed_over(cases):
    root = cases / "d10_header_only"
    assert catalog(root) == [(date, "ABC") for date in BOTH]
    assert passed_over(root) == ["ABC_2025-03-05.csv"]
    assert [day.counts for day in judge_all(root)] == [(3000, 3000, 0, 0)] * 2


def test_d13_both_files_of_an_overlap_are_named(cases):
    root = cases / "d13_overlap"
    assert judge(root, InstrumentDay(D1, "ABC")).counts == (3000, 3000, 0, 0)
    text = refused(root, InstrumentDay(D2, "ABC"), MarketError)
    assert "two files cover the same time of ABC 2025-03-04" in text
    assert "ABC_2025-03-03_to_2025-03-04.csv, ABC_2025-03-04.csv" in text


def test_every_case_is_tested(cases):
    text = Path(__file__).read_text()
    assert len(list(cases.iterdir())) == 45
    assert [root.name for root in cases.iterdir() if f'"{root.name}"' not in text] == []


def floored(source: str, folder: Path, unit_ns: int) -> Path:
    """A copy of a Hive store whose stamps are multiples of `unit_ns`."""
    for path in Path(source).rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        time = table["timestamp"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
        whole = pa.array(time // unit_ns * unit_ns, pa.timestamp("ns", "UTC"))
        place = table.column_names.index("timestamp")
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.set_column(place, "timestamp", whole), target)
    return folder


def test_real_ticks_floored_to_1_ms_lose_no_row(binance, tmp_path):
    days = judge_all(floored(binance, tmp_path, 10**6))
    assert len(days) == 10
    for day in days:
        assert day.report.passed, day.report.failures
        assert day.report.quarantined + day.report.repeated == 0
        assert day.notes.resolution == "1 ms"


def test_real_ticks_floored_to_100_ms_pass_on_every_day(binance, tmp_path):
    days = judge_all(floored(binance, tmp_path, 10**8))
    assert len(days) == 10
    for day in days:
        assert day.report.passed, day.report.failures
        assert day.report.quarantined == 0
        assert day.report.rows == day.report.clean + day.report.repeated
        assert day.notes.resolution == "100 ms"
