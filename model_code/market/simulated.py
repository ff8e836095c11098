"""A simulated market for a first run without data; all results from it are labelled simulated.

`simulated:` or `simulated:?seed=7&instruments=2&days=2&minutes=6`. Deterministic per (seed, symbol,
date). Symbols end in `.sim`. Sessions start at 12:00 UTC on consecutive days in 2000, a year that
cannot be mistaken for live data. Book and clock: `simulated_book.py`, calibrated to live captures
of BTC and ETH perpetuals and spot (46-192 quotes per second, spread one tick on 88-95 % of rows,
26-40 % of rows followed by a round trip within 100 ms).
"""

import datetime as dt
import zlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_code.artifacts import hash_bytes
from model_code.errors import ConfigError, MarketError
from model_code.market import join, simulated_book
from model_code.market.level2.rows import DepthRows
from model_code.market.notes import DayNotes, Loaded
from model_code.market.readers.files import PassedOver
from model_code.market.readers.statement import Statement
from model_code.market.schema import InstrumentDay
from model_code.market.simulated_book import Book, run_book
from model_code.market.stream.ticks import TableTicks, TickStream
from model_code.market.supplements import Series

FIRST_DATE = dt.date(2000, 1, 3)
VENUE = "sim"
_SESSION_START = dt.timedelta(hours=12)
_ROWS_PER_SECOND = 2000  # capacity; the calibrated rate is about 100


class Simulation(BaseModel):
    """Parameters of the URI's query.

    Attributes:
        seed: of the random generator.
        instruments: their number; they are named SIMA.sim, SIMB.sim, ...
        days: consecutive session dates from 2000-01-03.
        minutes: length of each session.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0)] = 7
    instruments: Annotated[int, Field(ge=1, le=26)] = 2
    days: Annotated[int, Field(ge=1, le=366)] = 2
    minutes: Annotated[float, Field(gt=0.0, le=720.0)] = 6.0


class SimulatedStore:
    """Instrument-days simulated on demand.

    Raises:
        ConfigError: the URI sets an unknown parameter or a bad value.
    """

    KIND: ClassVar[str] = "simulated"
    simulated = True

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.simulation = _parse(uri)

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day, sorted; rows are unknown before simulating."""
        return tuple(
            InstrumentDay(FIRST_DATE + dt.timedelta(days=day), f"SIM{chr(65 + i)}.{VENUE}")
            for day in range(self.simulation.days)
            for i in range(self.simulation.instruments)
        )

    @property
    def statement(self) -> Statement:
        """Nothing is stated: the default profile."""
        return Statement()

    def passed_over(self) -> tuple[PassedOver, ...]:
        """None: there are no files."""
        return ()

    def read(self, day: InstrumentDay) -> pa.Table:
        """One instrument-day as TICKS; see `load`."""
        return self.load(day).ticks

    def load(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> Loaded:
        """Simulate one instrument-day.

        Raises:
            MarketError: the catalogue has no such instrument-day.
        """
        self._check(day)
        key = [self.simulation.seed, zlib.crc32(day.symbol.encode()), day.date.toordinal()]
        index = ord(day.symbol[3]) - 65
        tick = 0.1 if index % 2 == 0 else 0.01
        rows = run_book(
            Book(base=10.0 - 2.0 * (index % 2)),
            np.random.default_rng(key),
            self.simulation.minutes * 60.0,
            600_000 if index % 2 == 0 else 260_000,
            int(self.simulation.minutes * 60.0 * _ROWS_PER_SECOND),
        )
        quotes, trades = _tables(rows, day, round(1 / tick))
        return join.load(
            quotes,
            trades,
            day.symbol,
            DayNotes(),
            where=self.uri,
            trades_where=self.uri,
            trade_band_bps=trade_band_bps,
        )

    def stream(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> TickStream:
        """One instrument-day for validation; see `load`."""
        return TableTicks.of(self.load(day, trade_band_bps=trade_band_bps))

    def digest(self, day: InstrumentDay) -> str:
        """sha256 of the parameters and of the simulator's source code."""
        self._check(day)
        code = b"".join(
            Path(str(file)).read_bytes() for file in (__file__, simulated_book.__file__)
        )
        fixed = f"{self.simulation.seed}|{self.simulation.minutes}|{day.symbol}|{day.date}|"
        return hash_bytes(fixed.encode() + code)

    def depth(self, day: InstrumentDay) -> DepthRows | None:  # noqa: ARG002
        """None: only the best levels are simulated."""
        return None

    def exogenous(self, name: str) -> Series:
        """There is none.

        Raises:
            MarketError: always.
        """
        raise MarketError(
            f"no exogenous series {name}: none is simulated",
            where=self.uri,
            remedy="choose another set, e.g. --set features.feature_set=paired",
        )

    def supplements(self, day: InstrumentDay) -> dict[str, str]:  # noqa: ARG002
        """Nothing beside ticks."""
        return {}

    @cached_property
    def _keys(self) -> frozenset[tuple[dt.date, str]]:
        return frozenset((day.date, day.symbol) for day in self.catalog())

    def _check(self, day: InstrumentDay) -> None:
        if (day.date, day.symbol) not in self._keys:
            raise MarketError(
                f"no {day.symbol} on {day.date} in this simulation",
                where=self.uri,
                remedy="list the store's contents: tickline data describe",
            )


def _parse(uri: str) -> Simulation:
    query = uri.removeprefix("simulated:").lstrip("/").removeprefix("?")
    try:
        return Simulation.model_validate(
            dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        )
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}, found {first['input']!r}"
    except ValueError as error:
        what = str(error)
    raise ConfigError(
        f"bad simulation parameter: {what}",
        where=uri,
        remedy=f"known: {', '.join(Simulation.model_fields)}; "
        "e.g. simulated:?seed=7&instruments=2&days=2&minutes=6",
    )


def _tables(
    rows: npt.NDArray[np.float64], day: InstrumentDay, ticks_per_unit: int
) -> tuple[pa.Table, pa.Table]:
    """Quotes and trades, as in a Hive store; a trade precedes the quote that it leaves behind."""
    start = dt.datetime.combine(day.date, dt.time(), dt.UTC) + _SESSION_START
    time = int(start.timestamp()) * 1_000_000_000 + (rows[:, 0] * 1e9).astype(np.int64)
    timestamp = pa.array(time, pa.timestamp("ns", "UTC"))
    size = np.maximum(rows[:, 3:6].round(5), 1e-5)
    quotes = pa.table(
        {
            "timestamp": timestamp,
            "bid_price": rows[:, 1] / ticks_per_unit,
            "ask_price": rows[:, 2] / ticks_per_unit,
            "bid_size": size[:, 0],
            "ask_size": size[:, 1],
            "sequence": 2 * np.arange(len(rows)) + 1,
        }
    )
    traded = np.flatnonzero(rows[:, 5] > 0)
    trades = pa.table(
        {
            "timestamp": timestamp.take(pa.array(traded)),
            "price": rows[traded, 6] / ticks_per_unit,
            "size": size[traded, 2],
            "buyer_is_maker": rows[traded, 7] > 0,
            "sequence": 2 * traded,
        }
    )
    return quotes, trades
