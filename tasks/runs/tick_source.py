"""Instrument-days of a market store as MLflow's dataset source: what a run was fed, loadable again.

`pyproject.toml` registers the class with MLflow, so `mlflow.data.get_source(dataset_input).load()`
works wherever Tickline is installed. MLflow imports this module while it is imported itself:
everything else is imported on use.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlflow.data.dataset_source import DatasetSource

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class TickDay:
    """One instrument-day: ISO date, symbol, and the sha256 of its source bytes."""

    date: str
    symbol: str
    sha256: str


class TickSource(DatasetSource):
    """Instrument-days of one market store.

    Attributes:
        uri: of the market store.
        days: instrument-days; empty for runs of versions that did not record them.
    """

    def __init__(self, uri: str, days: Iterable[TickDay]) -> None:
        self.uri, self.days = uri, tuple(days)

    def load(self) -> "pa.Table":
        """Read the ticks again, in the tick schema, unvalidated, day after day.

        Raises:
            DataError: the run recorded no days.
            IntegrityError: the store's bytes are no longer those the run was fed.
            MarketError: the store cannot be read.
        """
        import datetime as dt

        import pyarrow as pa

        from model_code.errors import DataError, IntegrityError
        from model_code.market.schema import InstrumentDay
        from model_code.market.store import open_market

        if not self.days:
            raise DataError(
                "the run did not record which instrument-days it read",
                where=self.uri,
                remedy="its datasets are named SYMBOL/DATE: read them with open_market(uri).read",
            )
        store = open_market(self.uri)
        tables = []
        for entry in self.days:
            day = InstrumentDay(dt.date.fromisoformat(entry.date), entry.symbol)
            if store.digest(day) != entry.sha256:
                raise IntegrityError(
                    f"{entry.symbol} on {entry.date} has changed since the run",
                    where=self.uri,
                    remedy="restore the files that the run was fed; its digest is in MLflow",
                )
            tables.append(store.read(day))
        return pa.concat_tables(tables)

    def to_dict(self) -> dict[str, Any]:
        """The store and its instrument-days."""
        return {"uri": self.uri, "days": [asdict(day) for day in self.days]}

    @classmethod
    def from_dict(cls, source_dict: Mapping[Any, Any]) -> "TickSource":
        """Read what `to_dict` wrote."""
        return cls(source_dict["uri"], (TickDay(**day) for day in source_dict.get("days", ())))

    @staticmethod
    def _get_source_type() -> str:
        return "tickline"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:  # noqa: ARG004  MLflow's interface
        return False  # only from what a run logged: a bare URI names no instrument-day

    @classmethod
    def _resolve(cls, raw_source: Any) -> "TickSource":
        raise NotImplementedError(f"no instrument-days given: {raw_source}")
