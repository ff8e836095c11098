import datetime as dt
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest

from model_code.errors import MarketError
from model_code.market.readers import dbn_records
from model_code.market.readers.dbn_records import Symbols, open_dbn, runs
from model_code.market.readers.files import read_blocks
from tests.support.formats import databento_records, dbn, mbp1, metadata, sample, write_dbn

FS = fsspec.filesystem("file")
DAY = sample(50)
HEADER = metadata(dbn.Schema.MBP_1, {"ABC": 7})
BOOK = (100, 101, 5, 6)


def read(path):
    return np.concatenate([rows for _, rows in open_dbn(FS, str(path)).records()])


@pytest.mark.parametrize("size", [1, 7, 80, 1000, 1 << 20])
@pytest.mark.parametrize("name", ["x.dbn", "x.dbn.zst"])
def test_records_equal_those_of_the_librarys_decoder(tmp_path, monkeypatch, name, size):
    records = databento_records(DAY)
    path = write_dbn(tmp_path / name, HEADER, records)
    monkeypatch.setattr(dbn_records, "read_blocks", lambda fs, at: read_blocks(fs, at, size))
    found = read(path)
    decoder = dbn.DBNDecoder()
    decoder.write(HEADER + b"".join(records))
    expected = decoder.decode()[1:]
    assert len(found) == len(expected) == len(records)
    for row, record in zip(found, expected, strict=True):
        level = record.levels[0]
        assert (row["ts_recv"], row["instrument_id"], row["price"], row["size"]) == (
            record.ts_recv, record.instrument_id, record.price, record.size,
        )  # fmt: skip
        assert (row["bid_px_00"], row["ask_px_00"], row["bid_sz_00"], row["ask_sz_00"]) == (
            level.bid_px, level.ask_px, level.bid_sz, level.ask_sz,
        )  # fmt: skip
        assert (row["action"].decode(), row["side"].decode()) == (
            str(record.action), str(record.side),
        )  # fmt: skip


@pytest.mark.parametrize("cut", [1, 79])
def test_a_file_that_ends_within_a_record_is_truncated(tmp_path, cut):
    path = tmp_path / "x.dbn"
    path.write_bytes((HEADER + b"".join(databento_records(DAY)))[:-cut])
    with pytest.raises(MarketError, match=f"truncated.*{80 - cut} bytes"):
        read(path)


def test_a_compressed_file_that_is_cut_is_refused(tmp_path):
    path = write_dbn(tmp_path / "x.dbn.zst", HEADER, databento_records(DAY))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(MarketError, match="cannot decompress"):
        read(path)


@pytest.mark.parametrize("data", [HEADER[:50], b"timestamp,bid_price\n", b"DBN"])
def test_another_format_and_cut_metadata_are_refused(tmp_path, data):
    path = tmp_path / "x.dbn"
    path.write_bytes(data)
    with pytest.raises(MarketError, match="not readable as DBN"):
        open_dbn(FS, str(path))
    path.write_bytes(b"")
    with pytest.raises(MarketError, match="the file is empty"):
        open_dbn(FS, str(path))


def test_a_record_of_an_impossible_length_is_damage(tmp_path):
    path = tmp_path / "x.dbn"
    path.write_bytes(HEADER + databento_records(DAY)[0] + b"\0" * 80)
    with pytest.raises(MarketError, match="length of 0 bytes"):
        read(path)


def test_runs_are_of_one_type_and_size():
    trade = bytes(dbn.TradeMsg(2, 7, 1, 1, 1, dbn.Action.TRADE, dbn.Side.ASK, 0, 1))
    quote = mbp1(7, 10_000, BOOK)
    data = quote * 200 + trade * 3 + quote + trade[:10]
    found = [(kind, (end - start) // size) for kind, size, start, end in runs(data, "x")]
    assert found == [(1, 200), (0, 3), (1, 1)]


def test_a_live_stream_appends_the_time_of_sending_and_announces_symbols(tmp_path):
    day = dt.date(2024, 8, 8)
    announced = dbn.SymbolMappingMsg(
        2, 9, 1, dbn.SType.RAW_SYMBOL, "XYZ", dbn.SType.RAW_SYMBOL, "XYZ", 1, 2
    )
    record = dbn.MBP1Msg(
        2, 9, 1, 5, 1, dbn.Action.ADD, dbn.Side.BID, 0, 1, levels=dbn.BidAskPair(), ts_out=77
    )
    assert len(bytes(record)) in (80, 88)
    longer = bytearray(bytes(record)[:80] + (77).to_bytes(8, "little"))
    longer[0] = 22
    path = tmp_path / "x.dbn"
    path.write_bytes(metadata(None, {}) + bytes(announced) + bytes(longer) * 2)
    file = open_dbn(FS, str(path))
    assert file.schema is None
    (rows,) = [rows for _, rows in file.records()]
    assert rows["price"].tolist() == [5, 5]
    assert file.symbols.symbol(9, day) == "XYZ"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_files_of_every_version_are_read(tmp_path, version):
    header = metadata(dbn.Schema.MBP_1, {"ABC": 7}, version=version)
    path = tmp_path / "x.dbn"
    path.write_bytes(header + b"".join(databento_records(DAY)))
    assert header[3] == version
    assert len(read(path)) == len(databento_records(DAY))
    assert open_dbn(FS, str(path)).symbols.symbol(7, dt.date(2024, 8, 8)) == "ABC"


def test_mappings_from_ids_to_symbols_are_read_too():
    day = dt.date(2024, 8, 8)
    interval = SimpleNamespace(symbol="ABC", start_date=day, end_date=day + dt.timedelta(days=1))
    made = dbn.Metadata(
        dataset="XNAS.ITCH",
        start=1,
        stype_in=dbn.SType.INSTRUMENT_ID,
        stype_out=dbn.SType.RAW_SYMBOL,
        schema=dbn.Schema.MBP_1,
        mappings=[SimpleNamespace(raw_symbol="7", intervals=[interval])],
    )
    assert Symbols.of(dbn.Metadata.decode(bytes(made))).symbol(7, day) == "ABC"


def test_a_symbol_holds_from_its_first_date_to_before_its_last():
    day = dt.date(2024, 8, 8)
    decoded = dbn.Metadata.decode(metadata(dbn.Schema.MBP_1, {"ABC": 7}, [day]))
    symbols = Symbols.of(decoded)
    one = dt.timedelta(days=1)
    assert [symbols.symbol(7, date) for date in (day - one, day, day + one)] == [None, "ABC", None]
    assert symbols.symbol(8, day) is None
