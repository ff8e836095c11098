"""Exogenous series: read from the store, refused where a value could mislead."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from model_code.errors import DataError, MarketError, SchemaError
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from tests.support.frames import write_series
from tests.support.market import DATES, SYMBOLS, desk_csv, hive

DAY = InstrumentDay(DATES[0], SYMBOLS[0])


def test_a_series_is_a_column_of_a_table_in_any_store(tmp_path: Path) -> None:
    for number, uri in enumerate((hive(tmp_path / "a", 20), desk_csv(tmp_path / "b", 20))):
        write_series(uri, "macro", [10, 20, 30, 40], rate=[1, 2, None, 4], vix=[0.5, 0.25, 0.0, 1])
        market = open_market(uri)
        rate, vix = market.exogenous("macro.rate"), market.exogenous("macro.vix")
        assert (rate.timestamp_M.tolist(), rate.value_M.tolist()) == ([10, 20, 40], [1, 2, 4])
        assert vix.value_M.tolist() == [0.5, 0.25, 0.0, 1.0]
        assert market.passed_over() == ()
        assert len(market.catalog()) == 4, number


def test_integer_stamps_have_the_unit_that_the_store_states(tmp_path: Path) -> None:
    uri = hive(tmp_path, 20)
    path = write_series(uri, "macro", [1], x=[1.0])
    pa.parquet.write_table(pa.table({"timestamp": [5], "x": [1.0]}), path)
    with pytest.raises(SchemaError, match="their unit is not stated"):
        open_market(uri).exogenous("macro.x")
    (tmp_path / "tickline.yaml").write_text("timestamp_unit: ms\n")
    assert open_market(uri).exogenous("macro.x").timestamp_M.tolist() == [5_000_000]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_value_that_is_not_finite_is_an_error_with_file_row_and_column(
    tmp_path: Path, value: float
) -> None:
    uri = hive(tmp_path, 20)
    path = write_series(uri, "macro", [1, 2, 3], x=pa.array([1.0, value, 2.0]))
    with pytest.raises(DataError, match=f"the value {value} is not finite") as caught:
        open_market(uri).exogenous("macro.x")
    assert caught.value.where == f"{path}, row 2, column 'x'"


@pytest.mark.parametrize(
    ("name", "times", "columns", "kind", "message"),
    [
        ("other.x", [1], {"x": [1.0]}, MarketError, "no exogenous table other: the store has m"),
        ("m.y", [1], {"x": [1.0]}, SchemaError, "column 'y' is missing"),
        ("m.x", [1], {"x": ["a"]}, SchemaError, "column 'x' has the wrong type"),
        ("m.x", [2, 1], {"x": [1.0, 1.0]}, DataError, "time stamps go back"),
        ("m.x", [None], {"x": [1.0]}, DataError, "'timestamp' has 1 nulls"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path,
    name: str,
    times: list[int],
    columns: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    uri = hive(tmp_path, 20)
    write_series(uri, "m", times, **columns)
    with pytest.raises(kind, match=message):
        open_market(uri).exogenous(name)


def test_a_damaged_table_and_a_simulated_market_have_no_series(tmp_path: Path) -> None:
    uri = hive(tmp_path, 20)
    write_series(uri, "m", [1], x=[1.0]).write_bytes(b"PAR1")
    with pytest.raises(MarketError, match="not readable as Parquet"):
        open_market(uri).exogenous("m.x")
    simulated = open_market("simulated:")
    with pytest.raises(MarketError, match=r"no exogenous series m\.x"):
        simulated.exogenous("m.x")
    day = simulated.catalog()[0]
    assert simulated.depth(day) is None
    assert simulated.supplements(day) == {}


def test_digests_follow_the_bytes_of_each_table(tmp_path: Path) -> None:
    uri = hive(tmp_path, 20)
    assert open_market(uri).supplements(DAY) == {}
    write_series(uri, "a", [1], x=[1.0])
    write_series(uri, "b", [1], x=[1.0])
    before = open_market(uri).supplements(DAY)
    write_series(uri, "b", [1], x=[2.0])
    after = open_market(uri).supplements(DAY)
    assert before.keys() == after.keys() == {"exogenous/a", "exogenous/b"}
    assert {name for name in before if before[name] != after[name]} == {"exogenous/b"}
    assert open_market(uri).digest(DAY) == open_market(hive(tmp_path / "same", 20)).digest(DAY)
