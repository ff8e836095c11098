from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.errors import ConfigError, DataError, SchemaError
from model_code.market.readers.statement import Statement, read_statement
from model_code.market.store import open_market
from tests.support.market import DATES, SYMBOLS, desk_csv, hive, quotes, ticks

FILE = "tickline.yaml"
LOCAL = fsspec.filesystem("file")


def state(folder: Path, text: str) -> Statement:
    (folder / FILE).write_text(text)
    return read_statement(LOCAL, str(folder))


def test_the_file_states_profile_and_unit(tmp_path: Path) -> None:
    found = state(tmp_path, "profile: us-equities\ntimestamp_unit: ms  # of integers\n")
    assert (found.profile, found.timestamp_unit) == ("us-equities", "ms")
    assert found.paths == (f"{tmp_path}/{FILE}",)


def test_an_absent_or_empty_file_states_nothing(tmp_path: Path) -> None:
    assert read_statement(LOCAL, str(tmp_path)) == Statement()
    assert state(tmp_path, "").profile is None
    (tmp_path / "AAA.csv").write_text("")
    assert read_statement(LOCAL, str(tmp_path / "AAA.csv")) == Statement()


@pytest.mark.parametrize(
    "text",
    [
        "profile: stocks",
        "timestamp_unit: hours",
        "timezone: UTC",
        "paths: [a]",
        "[crypto]",
        "profile: [",
        "profile: 3",
    ],
)
def test_a_wrong_field_is_a_config_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="the store's statement is wrong") as caught:
        state(tmp_path, text)
    assert caught.value.where == f"{tmp_path}/{FILE}"
    assert "profile (crypto, us-equities, fx), timestamp_unit (s, ms, us, ns)" in (
        caught.value.remedy
    )


def test_a_file_that_is_not_text_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"profile: \xff\xfe")
    with pytest.raises(ConfigError, match="the store's statement is wrong"):
        read_statement(LOCAL, str(tmp_path))


def integers(unit: str) -> pa.Table:
    """Quotes with integer stamps, cut to the unit."""
    table = quotes(ticks(5))
    cut = table["timestamp"].cast(pa.timestamp(unit, "UTC"), safe=False)
    return table.set_column(0, "timestamp", cut.cast(pa.int64()))


def store_of(folder: Path, table: pa.Table) -> Path:
    root = Path(hive(folder, n=5))
    pq.write_table(table, root / "quotes" / f"symbol={SYMBOLS[0]}" / f"date={DATES[0]}.parquet")
    return root


def test_integer_stamps_are_refused_while_their_unit_is_not_stated(tmp_path: Path) -> None:
    store = open_market(str(store_of(tmp_path, integers("ms"))))
    with pytest.raises(SchemaError, match=r"'timestamp' has integers \(int64\)") as caught:
        store.read(store.catalog()[0])
    assert f"state it in {FILE}" in caught.value.remedy


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_integer_stamps_are_times_of_the_stated_unit(tmp_path: Path, unit: str) -> None:
    root = store_of(tmp_path, integers(unit))
    (root / FILE).write_text(f"timestamp_unit: {unit}\n")
    store = open_market(str(root))
    found = store.read(store.catalog()[0])["timestamp"]
    exact = ticks(5)["timestamp"].cast(pa.timestamp(unit, "UTC"), safe=False)
    assert found.equals(exact.cast(pa.timestamp("ns", "UTC")))


def test_stamps_too_large_for_the_stated_unit_are_refused(tmp_path: Path) -> None:
    root = store_of(tmp_path, integers("ns"))
    (root / FILE).write_text("timestamp_unit: ms\n")
    store = open_market(str(root))
    with pytest.raises(SchemaError, match="does not fit the stated unit ms") as caught:
        store.read(store.catalog()[0])
    assert caught.value.remedy == f"correct timestamp_unit in {FILE}"


def test_the_digest_of_a_day_changes_with_the_statement_and_the_file_is_not_data(
    tmp_path: Path,
) -> None:
    root = hive(tmp_path, n=5)
    day = open_market(root).catalog()[0]
    before = open_market(root).digest(day)
    (tmp_path / FILE).write_text("profile: fx\n")
    after = open_market(root)
    assert after.statement.profile == "fx"
    assert after.digest(day) != before
    assert after.passed_over() == ()


def test_integer_stamps_of_a_csv_need_the_stated_unit(tmp_path: Path) -> None:
    uri = desk_csv(tmp_path / "s", 50, symbols=("AAA",), dates=DATES[:1])
    path = tmp_path / "s" / f"AAA_{DATES[0]}.csv"
    before = open_market(uri)
    times = before.read(before.catalog()[0])["timestamp"].cast(pa.int64()).to_pylist()
    header, *rows = path.read_text().splitlines()
    stamped = [
        f"{time // 10**6},{row.partition(',')[2]}" for time, row in zip(times, rows, strict=True)
    ]
    path.write_text("\n".join([header, *stamped]) + "\n")
    with pytest.raises(DataError, match="timestamp_unit: ms"):
        open_market(uri).catalog()
    (tmp_path / "s" / FILE).write_text("timestamp_unit: ms\n")
    store = open_market(uri)
    assert store.read(store.catalog()[0])["timestamp"].cast(pa.int64()).to_pylist() == times
