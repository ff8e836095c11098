"""Small samples in the formats that data vendors deliver, from one simulated day each.

The quotes and trades of a sample are the same in every format, as far as it can hold them: stamps
in whole microseconds, prices in cents, whole sizes.
"""

import datetime as dt
import gzip
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.market import DATES, epoch_ns, ticks

dbn: Any = importlib.import_module("databento_dbn")  # its stubs type enumerations as text
TARDIS = {
    "quotes": "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount",
    "trades": "exchange,symbol,timestamp,local_timestamp,id,side,price,amount",
}
NEW_YORK = ZoneInfo("America/New_York")


class Sample(NamedTuple):
    """One instrument-day: N quotes, M trades; `row` is the quote that a trade precedes."""

    date: dt.date
    time_ns: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    bid_size: np.ndarray
    ask_size: np.ndarray
    row: np.ndarray
    price: np.ndarray
    size: np.ndarray
    sell: np.ndarray


def sample(n: int = 300, symbol: str = "ABC", date: dt.date = DATES[0]) -> Sample:
    """`n` quotes from 14:00 UTC, a trade before about 30% of them, at the quote's own stamp."""
    table = ticks(n, 3, symbol, date)
    time = table["timestamp"].cast(pa.int64()).to_numpy() - epoch_ns(date) + epoch_ns(date, 14.0)
    row = np.flatnonzero(table["trade_count"].to_numpy())
    row = row[row > 0]
    sell = table["sell_volume"].to_numpy()[row] > 0
    bid, ask = (
        np.rint(table[name].to_numpy() * 100).astype(int) for name in ("bid_price", "ask_price")
    )
    return Sample(
        date=date,
        time_ns=time // 1000 * 1000,
        bid=bid,
        ask=ask,
        bid_size=np.ceil(table["bid_size"].to_numpy()).astype(int),
        ask_size=np.ceil(table["ask_size"].to_numpy()).astype(int),
        row=row,
        price=np.where(sell, bid[row - 1], ask[row - 1]),
        size=1 + row % 7,
        sell=sell,
    )


def events(day: Sample) -> Iterator[tuple[str, int]]:
    """Trades, each before its quote, and quotes: ("trade", its place) or ("quote", its row)."""
    trade = 0
    for i in range(len(day.time_ns)):
        while trade < len(day.row) and day.row[trade] == i:
            yield "trade", trade
            trade += 1
        yield "quote", i


def hive_tables(day: Sample) -> tuple[pa.Table, pa.Table]:
    """Quotes and trades as the hive layout holds them; a trade is numbered before its quote."""
    order = {event: place for place, event in enumerate(events(day))}
    utc = pa.timestamp("ns", "UTC")
    quotes = pa.table(
        {
            "timestamp": pa.array(day.time_ns, utc),
            "bid_price": day.bid / 100,
            "ask_price": day.ask / 100,
            "bid_size": day.bid_size.astype(float),
            "ask_size": day.ask_size.astype(float),
            "sequence": [order["quote", i] for i in range(len(day.time_ns))],
        }
    )
    trades = pa.table(
        {
            "timestamp": pa.array(day.time_ns[day.row], utc),
            "price": day.price / 100,
            "size": day.size.astype(float),
            "buyer_is_maker": day.sell,
            "sequence": [order["trade", i] for i in range(len(day.row))],
        }
    )
    return quotes, trades


def write_hive_sample(folder: Path, days: Sequence[Sample], symbol: str) -> str:
    """The sample in Tickline's own layout: what every other format must give."""
    for day in days:
        for kind, table in zip(("quotes", "trades"), hive_tables(day), strict=True):
            path = folder / kind / f"symbol={symbol}" / f"date={day.date}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path)
    return str(folder)


# Databento

PRICE = dbn.FIXED_PRICE_SCALE // 100  # of a cent


def metadata(
    schema: dbn.Schema | None,
    symbols: dict[str, int],
    dates: Sequence[dt.date] = DATES,
    dataset: str = "XNAS.ITCH",
    version: int = dbn.DBN_VERSION,
) -> bytes:
    """Metadata of a file, its symbols mapped on the dates."""
    interval = {"start_date": min(dates), "end_date": max(dates) + dt.timedelta(days=1)}
    mappings: list[Any] = [
        SimpleNamespace(
            raw_symbol=symbol, intervals=[SimpleNamespace(symbol=str(number), **interval)]
        )
        for symbol, number in symbols.items()
    ]
    made = dbn.Metadata(
        dataset=dataset,
        start=epoch_ns(min(dates), 0),
        stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID,
        schema=schema,
        symbols=list(symbols),
        mappings=mappings,
        version=version,
    )
    return bytes(made)


def mbp1(
    number: int,
    time_ns: int,
    book: tuple[int, int, int, int],
    *,
    price: int = dbn.UNDEF_PRICE,
    size: int = 0,
    action: dbn.Action = dbn.Action.MODIFY,
    side: dbn.Side = dbn.Side.NONE,
    flags: int = dbn.F_LAST,
    publisher: int = 2,
) -> bytes:
    """An MBP-1 record; `book` is bid, ask (cents), bid size, ask size."""
    bid, ask, bid_size, ask_size = map(int, book)
    levels = dbn.BidAskPair(
        bid_px=bid * PRICE, ask_px=ask * PRICE, bid_sz=bid_size, ask_sz=ask_size, bid_ct=1, ask_ct=1
    )
    return bytes(
        dbn.MBP1Msg(
            publisher, number, int(time_ns) - 5000, price, size, action, side, 0, int(time_ns),
            flags=flags, sequence=1, levels=levels,
        )
    )  # fmt: skip


def book_of(day: Sample, i: int) -> tuple[int, int, int, int]:
    """The book of a quote row."""
    return day.bid[i], day.ask[i], day.bid_size[i], day.ask_size[i]


def databento_records(day: Sample, schema: str = "mbp-1", number: int = 7) -> list[bytes]:
    """A sample's records; the book of a trade is the one before it."""
    records = []
    for kind, i in events(day):
        if kind == "quote":
            if schema == "mbp-1":
                records.append(mbp1(number, day.time_ns[i], book_of(day, i)))
            continue
        side = dbn.Side.ASK if day.sell[i] else dbn.Side.BID
        time, price, size = (
            int(day.time_ns[day.row[i]]),
            int(day.price[i]) * PRICE,
            int(day.size[i]),
        )
        if schema == "trades":
            record = dbn.TradeMsg(
                2, number, time - 5000, price, size, dbn.Action.TRADE, side, 0, time
            )
            records.append(bytes(record))
        else:
            before = book_of(day, int(day.row[i]) - 1)
            records.append(
                mbp1(
                    number, time, before, price=price, size=size, action=dbn.Action.TRADE, side=side
                )
            )
    return records


def write_dbn(path: Path, header: bytes, records: Sequence[bytes]) -> Path:
    """Encode a file with the library; compressed if its name ends with .zst."""
    path.parent.mkdir(parents=True, exist_ok=True)
    zstd = path.suffix == ".zst"
    compression = dbn.Compression.ZSTD if zstd else dbn.Compression.NONE
    with path.open("wb") as file, dbn.Transcoder(file, dbn.Encoding.DBN, compression) as encoder:
        encoder.write(header)
        for record in records:
            encoder.write(record)
    return path


def databento(
    folder: Path, days: Sequence[Sample], symbol: str = "ABC", schema: str = "mbp-1"
) -> str:
    """A file a day, as a batch download has them; return the folder."""
    for day in days:
        header = metadata(dbn.Schema.from_str(schema), {symbol: 7}, [day.date])
        name = f"xnas-itch-{day.date:%Y%m%d}.{schema}.dbn.zst"
        write_dbn(folder / name, header, databento_records(day, schema))
    return str(folder)


# Tardis


def tardis_lines(
    day: Sample, symbol: str = "ABCUSDT", exchange: str = "binance"
) -> dict[str, list[str]]:
    """Lines of quotes and trades without their headers."""
    head = [f"{exchange},{symbol},{time // 1000 - 4000},{time // 1000}" for time in day.time_ns]
    quotes = [
        f"{head[i]},{day.ask_size[i]},{day.ask[i] / 100},{day.bid[i] / 100},{day.bid_size[i]}"
        for i in range(len(head))
    ]
    trades = [
        f"{head[row]},t{place},{'sell' if day.sell[place] else 'buy'},{day.price[place] / 100},"
        f"{day.size[place]}"
        for place, row in enumerate(day.row)
    ]
    return {"quotes": quotes, "trades": trades}


def write_tardis(path: Path, kind: str, lines: Sequence[str]) -> Path:
    """Write a file with its header, compressed if its name ends with .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(f"{line}\n" for line in [TARDIS[kind], *lines]).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def tardis(folder: Path, days: Sequence[Sample], symbol: str = "ABCUSDT") -> str:
    """Quotes and trades a day, as the download client names them; return the folder."""
    for day in days:
        for kind, lines in tardis_lines(day, symbol).items():
            write_tardis(folder / f"binance_{kind}_{day.date}_{symbol}.csv.gz", kind, lines)
    return str(folder)


# LOBSTER


def lobster_lines(day: Sample) -> tuple[list[str], list[str]]:
    """Messages and the book after each; an execution comes with the quote that it leaves."""
    midnight = dt.datetime.combine(day.date, dt.time(), NEW_YORK).timestamp()
    executed = {int(row): place for place, row in enumerate(day.row)}
    messages, book = [], []
    for i, time in enumerate(day.time_ns):
        after = int(time) - round(midnight * 1e9)
        stamp = f"{after // 10**9}.{after % 10**9:09d}"
        book.append(f"{day.ask[i] * 100},{day.ask_size[i]},{day.bid[i] * 100},{day.bid_size[i]}")
        if i in executed:
            place = executed[i]
            direction = 1 if day.sell[place] else -1  # of the resting order
            messages.append(
                f"{stamp},4,{1000 + i},{day.size[place]},{day.price[place] * 100},{direction}"
            )
        else:
            messages.append(f"{stamp},1,{1000 + i},{day.bid_size[i]},{day.bid[i] * 100},1")
    return messages, book


def write_lobster(
    folder: Path, date: dt.date, messages: Sequence[str], book: Sequence[str], ticker: str = "ABC"
) -> Path:
    """Write a pair of files of the usual session; return the message file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{ticker}_{date}_34200000_57600000_message_1.csv"
    path.write_text("".join(f"{line}\n" for line in messages))
    path.with_name(path.name.replace("message", "orderbook")).write_text(
        "".join(f"{line}\n" for line in book)
    )
    return path


def lobster(folder: Path, days: Sequence[Sample], ticker: str = "ABC") -> str:
    """A pair of files a day; return the folder."""
    for day in days:
        write_lobster(folder, day.date, *lobster_lines(day), ticker)
    return str(folder)


# a desk's own Parquet

TAQ_MAPPING = """\
time_zone: America/New_York
venue: XNYS
quotes:
  files: quotes_*.parquet
  date: date
  timestamp: time
  symbol: sym
  bid_price: bid
  ask_price: ask
  bid_size: bsize
  ask_size: asize
trades:
  files: trades_*.parquet
  date: date
  timestamp: time
  symbol: sym
  price: price
  size: size
  aggressor: {column: side, bought: [B], sold: [S]}
"""


def taq_tables(day: Sample, symbol: str = "ABC") -> tuple[pa.Table, pa.Table]:
    """Quotes and trades as a kdb+ export has them: a date, a time of day in New York, a symbol."""
    midnight = dt.datetime.combine(day.date, dt.time(), NEW_YORK).timestamp()
    after = pa.array(day.time_ns - round(midnight * 1e9)).cast(pa.time64("ns"))

    def keys(rows: np.ndarray) -> dict[str, Any]:
        return {
            "date": [day.date] * len(rows),
            "time": after.take(pa.array(rows)),
            "sym": pa.array([symbol] * len(rows)).dictionary_encode(),
        }

    quotes = keys(np.arange(len(day.time_ns))) | {
        "bid": day.bid / 100,
        "ask": day.ask / 100,
        "bsize": day.bid_size,
        "asize": day.ask_size,
    }
    trades = keys(day.row) | {
        "price": day.price / 100,
        "size": day.size,
        "side": np.where(day.sell, "S", "B"),
    }
    return pa.table(quotes), pa.table(trades)


def taq(folder: Path, days: Sequence[Sample], symbol: str = "ABC") -> str:
    """Quotes and trades of all days in a file each, and their mapping; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    quotes, trades = zip(*(taq_tables(day, symbol) for day in days), strict=True)
    name = f"{days[0].date.year}.parquet"
    pq.write_table(pa.concat_tables(quotes).unify_dictionaries(), folder / f"quotes_{name}")
    pq.write_table(pa.concat_tables(trades).unify_dictionaries(), folder / f"trades_{name}")
    (folder / "mapping.yaml").write_text(TAQ_MAPPING)
    return str(folder)
