"""One instrument-day as the night sees it: read, validated, and what the summary says of it."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from model_code.market.notes import DayNotes
from model_code.market.quality import DayReport
from model_code.market.schema import InstrumentDay
from model_code.market.store import MarketStore, open_market
from model_code.settings import ValidationSpec
from tasks.nightly.validate import _sentences
from tasks.validation.day import validate_day

SPEC = ValidationSpec()
Silences = tuple[tuple[dt.datetime, dt.datetime], ...]


@dataclass(frozen=True)
class Judged:
    """What a reader returned for one instrument-day, and what validation found."""

    ticks: pa.Table
    clean: pa.Table
    notes: DayNotes
    report: DayReport
    summary: tuple[str, ...]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Rows, clean, quarantined, repeated."""
        report = self.report
        return report.rows, report.clean, report.quarantined, report.repeated

    def total(self, name: str) -> float:
        """Sum of a column, to 9 digits after the point."""
        values: list[float] = self.ticks[name].to_pylist()
        return round(sum(values), 9)

    @property
    def traded(self) -> tuple[int, float, float]:
        """Trades, bought and sold volume."""
        return int(self.total("trade_count")), self.total("buy_volume"), self.total("sell_volume")

    @property
    def vwap(self) -> float | None:
        """The last row's vwap to 3 digits."""
        last = self.ticks["vwap"][-1].as_py()
        return None if last is None else round(last, 3)


def judge(
    store: MarketStore | Path,
    day: InstrumentDay,
    spec: ValidationSpec = SPEC,
    silences: Silences = (),
) -> Judged:
    """Read and validate one instrument-day as `tasks/nightly/validate.py` does."""
    store = open_market(str(store)) if isinstance(store, Path) else store
    loaded = store.load(day, trade_band_bps=spec.trade_band_bps)
    found = validate_day(
        loaded.ticks,
        day,
        spec,
        stated=store.statement.profile,
        notes=loaded.notes,
        silences=silences,
    )
    report = found.report
    assert report.rows == report.clean + report.quarantined + report.repeated
    summary = tuple(_sentences(report, loaded.notes))
    return Judged(loaded.ticks, found.clean, loaded.notes, report, summary)


def judge_all(root: Path, spec: ValidationSpec = SPEC) -> list[Judged]:
    """Every instrument-day of a store, in the catalogue's order."""
    store = open_market(str(root))
    return [judge(store, day, spec) for day in store.catalog()]
