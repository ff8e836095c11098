"""What an import writes is what its source gives, and nothing is lost without a count."""

import pyarrow.parquet as pq
import pytest

from model_code.errors import ConfigError, MarketError
from model_code.market.readers.chunked import ChunkedStore
from model_code.market.readers.hive_import import hive_path, import_days
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from tests.support import formats
from tests.support.formats import databento, lobster, sample, taq, tardis, write_lobster
from tests.support.market import DATES, hive

DAYS = [sample(date=date) for date in DATES]
FORMATS = (databento, tardis, lobster, taq)


def opened(uri):
    store = open_market(uri)
    assert isinstance(store, ChunkedStore)
    return store


def run(uri, folder):
    return list(import_days(opened(uri), folder))


def bytes_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("write", FORMATS)
def test_the_imported_store_gives_the_same_ticks(tmp_path, write):
    source = write(tmp_path / "source", DAYS)
    done = run(source, tmp_path / "hive")
    store, copy = opened(source), open_market(str(tmp_path / "hive"))
    assert copy.KIND == "hive"
    assert [(day.date, day.symbol) for day in copy.catalog()] == [
        (day.date, day.symbol) for day in store.catalog()
    ]
    assert copy.passed_over() == ()
    for day in store.catalog():
        assert copy.read(day).equals(store.read(day))
        assert copy.read(day).num_rows == day.rows
        assert copy.load(day).notes.trades == store.load(day).notes.trades
    assert [(day.quotes, day.trades) for day in done] == [(300, len(source.row)) for source in DAYS]
    assert copy.statement.profile == store.statement.profile


@pytest.mark.parametrize("write", FORMATS)
def test_a_second_run_changes_nothing(tmp_path, write):
    source, target = write(tmp_path / "source", DAYS), tmp_path / "hive"
    first = run(source, target)
    before = bytes_of(target)
    second = run(source, target)
    assert bytes_of(target) == before
    assert [day.unchanged for day in first + second] == [False, False, True, True]
    assert [(day.quotes, day.trades) for day in first] == [
        (day.quotes, day.trades) for day in second
    ]
    run(source, tmp_path / "other")
    assert [data for _, data in sorted(bytes_of(tmp_path / "other").items())] == [
        data for _, data in sorted(before.items())
    ]


def test_a_changed_day_is_written_again_and_only_it(tmp_path):
    run(tardis(tmp_path / "source", DAYS), tmp_path / "hive")
    source = tardis(tmp_path / "source", [sample(200, date=DATES[1])])
    done = run(source, tmp_path / "hive")
    assert [(day.unchanged, day.quotes) for day in done] == [(True, 300), (False, 200)]


@pytest.mark.parametrize("kind", ["quotes", "trades"])
def test_a_missing_file_is_written_again(tmp_path, kind):
    source = lobster(tmp_path / "source", DAYS)
    run(source, tmp_path / "hive")
    path = hive_path(tmp_path / "hive", kind, InstrumentDay(DATES[0], "ABC.XNAS"))
    before = path.read_bytes()
    path.unlink()
    assert [day.unchanged for day in run(source, tmp_path / "hive")] == [False, True]
    assert path.read_bytes() == before


def test_trades_that_the_source_no_longer_has_are_removed(tmp_path):
    source = tardis(tmp_path / "source", DAYS)
    run(source, tmp_path / "hive")
    for path in (tmp_path / "source").glob("*trades*"):
        path.unlink()
    run(source, tmp_path / "hive")
    assert not list((tmp_path / "hive" / "trades").rglob("*.parquet"))
    assert open_market(str(tmp_path / "hive")).passed_over() == ()


def test_a_refused_day_does_not_stop_the_others(tmp_path):
    source = tardis(tmp_path / "source", DAYS)
    (tmp_path / "source" / f"binance_trades_{DATES[0]}_ABCUSDT.csv.gz").unlink()
    done = run(source, tmp_path / "hive")
    assert "no trades on 2024-08-08, but on 2024-08-09" in done[0].refused
    assert (done[1].refused, done[1].quotes) == ("", 300)
    assert [day.date for day in open_market(str(tmp_path / "hive")).catalog()] == [DATES[1]]


def test_left_out_and_faulty_rows_are_counted(tmp_path):
    messages = ["34300,1,1,5,1000000,1"] * 4 + ["34301,6,-1,5,1000000,1", "34302,4,1,0,1000000,1"]
    book = ["1000100,6,1000000,5", "1000000,6,1000000,5", "999900,6,1000000,5"]
    book += ["9999999999,0,1000000,5", *book[:1] * 2]
    write_lobster(tmp_path / "source", DATES[0], messages, book)
    (day,) = run(str(tmp_path / "source"), tmp_path / "hive")
    assert day.quotes == 5
    assert day.left_out == {
        "trades left out, crosses (type 6), their executions are listed one by one": 1,
        "quotes left out, halt messages (type 7)": 0,
        "quotes left out, quotes of a trading halt": 0,
    }
    assert day.quarantined == 3
    assert {"locked_quote": 1, "crossed_quote": 1, "missing_ask": 1}.items() <= day.faults.items()
    assert (day.trades, day.trade_faults) == (1, 1)
    copy = open_market(str(tmp_path / "hive"))
    assert copy.read(copy.catalog()[0]).num_rows == 5


def test_a_symbol_with_a_slash_is_one_folder(tmp_path):
    source = taq(tmp_path / "source", DAYS, symbol="BRK/B")
    run(source, tmp_path / "hive")
    assert [day.symbol for day in open_market(str(tmp_path / "hive")).catalog()] == [
        "BRK/B.XNYS"
    ] * 2


def test_files_of_others_are_not_overwritten(tmp_path):
    hive(tmp_path / "hive", n=5, symbols=["ABC.XNAS"])
    before = bytes_of(tmp_path / "hive")
    done = run(lobster(tmp_path / "source", DAYS), tmp_path / "hive")
    assert all("was not written by an import" in day.refused for day in done)
    assert before.items() <= bytes_of(tmp_path / "hive").items()


def test_a_damaged_file_at_the_target_is_named(tmp_path):
    source = lobster(tmp_path / "source", DAYS)
    run(source, tmp_path / "hive")
    path = hive_path(tmp_path / "hive", "quotes", InstrumentDay(DATES[0], "ABC.XNAS"))
    path.write_bytes(path.read_bytes()[:50])
    assert "delete it and import again" in run(source, tmp_path / "hive")[0].refused


def test_a_failed_write_leaves_no_day(tmp_path, monkeypatch):
    source = lobster(tmp_path / "source", DAYS)
    write = pq.write_table

    def fail(table, path, **more):
        if "bid_price" in table.column_names:
            raise OSError(28, "No space left on device")
        write(table, path, **more)

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(Exception, match="No space left"):
        run(source, tmp_path / "hive")
    assert not list((tmp_path / "hive" / "quotes").rglob("*"))[1:]
    monkeypatch.undo()
    assert [day.unchanged for day in run(source, tmp_path / "hive")] == [False, False]


def test_the_source_is_no_target(tmp_path):
    source = databento(tmp_path, DAYS)
    with pytest.raises(ConfigError, match="inside the one to read"):
        run(source, tmp_path / "hive")
    assert not (tmp_path / "hive").exists()


def test_a_catalogue_that_cannot_be_read_stops_before_anything_is_written(tmp_path):
    formats.write_tardis(tmp_path / "source" / "x_quotes_2024-08-08_y.csv", "trades", [])
    with pytest.raises(MarketError, match="no instrument-day"):
        run(str(tmp_path / "source"), tmp_path / "hive")
    assert not list((tmp_path / "hive").rglob("*.parquet"))
