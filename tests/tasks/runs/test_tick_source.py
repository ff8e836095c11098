"""Instrument-days that a run was fed, loaded again from what MLflow kept."""

import json

import mlflow
import pytest
from mlflow.data.dataset_source_registry import get_dataset_source_from_json, resolve_dataset_source
from mlflow.entities import Dataset
from mlflow.exceptions import MlflowException

from model_code.errors import DataError, IntegrityError
from model_code.market.store import open_market
from tasks.runs.tick_source import TickDay, TickSource

MARKET = "simulated:?seed=3&instruments=1&days=2&minutes=2"


def fed(market: str = MARKET) -> tuple[TickDay, ...]:
    store = open_market(market)
    return tuple(TickDay(str(day.date), day.symbol, store.digest(day)) for day in store.catalog())


def test_several_days_reload_as_one_table_in_their_order() -> None:
    written = TickSource(MARKET, fed())
    kept = Dataset("ticks", "0", "tickline", written.to_json())
    source = mlflow.data.get_source(kept)
    assert isinstance(source, TickSource)
    assert (source.uri, source.days) == (MARKET, fed())
    store = open_market(MARKET)
    parts = [store.read(day) for day in store.catalog()]
    table = source.load()
    assert table.num_rows == sum(part.num_rows for part in parts)
    assert table.slice(0, parts[0].num_rows).equals(parts[0])
    assert table.slice(parts[0].num_rows).equals(parts[1])


def test_ticks_that_changed_since_the_run_do_not_reload() -> None:
    first, second = fed()
    source = TickSource(MARKET, [first, TickDay(second.date, second.symbol, "0" * 64)])
    with pytest.raises(IntegrityError, match=f"{second.date} has changed since the run"):
        source.load()


def test_a_source_of_an_earlier_version_says_that_it_cannot_reload() -> None:
    source = get_dataset_source_from_json(json.dumps({"uri": MARKET}), "tickline")
    assert source.to_dict() == {"uri": MARKET, "days": []}
    with pytest.raises(DataError, match="did not record"):
        source.load()


def test_no_bare_uri_is_taken_for_ticks() -> None:
    with pytest.raises(MlflowException, match="Could not find a source"):
        resolve_dataset_source(MARKET, [TickSource])  # type: ignore[list-item]
    with pytest.raises(NotImplementedError, match="no instrument-days given"):
        TickSource._resolve(MARKET)
