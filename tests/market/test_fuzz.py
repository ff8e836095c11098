"""Random damage to small stores: a right answer, or an error that names the file or the store."""

import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_code.errors import TicklineError
from model_code.market.measures import derive
from model_code.market.quality import quarantine
from model_code.market.readers.hive import QUOTE_COLUMNS, TRADE_COLUMNS
from model_code.market.store import open_market
from tests.market.small import DATES, SPEC, WRITERS, hive, market
from tests.support import formats
from tests.support.formats import sample

EXAMPLES = 50
VENDORS = (formats.databento, formats.tardis, formats.lobster, formats.taq)
PRICES = ("bid_price", "ask_price")
# a place in a file, a row, a column ...: as a share, whatever there is of them
share = st.floats(0, 1, exclude_max=True, allow_subnormal=False)
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small valid store of each reader."""
    folder = tmp_path_factory.mktemp("templates")
    for reader, write in WRITERS.items():
        write(folder / reader, *market(60))
    quotes, trades = market(60)
    for vendor in VENDORS:
        vendor(folder / vendor.__name__, [sample(60, date=date) for date in DATES])
    hive(folder / "one day", {DATES[0]: quotes[DATES[0]]}, {DATES[0]: trades[DATES[0]]})
    return folder


def check(template: Path, edits: list[Edit]) -> None:
    """Damage a copy of the store, then read and sift all of it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        shutil.copytree(template, root)
        for edit in edits:
            edit(root)
        names = {root.name, *(path.name for path in root.rglob("*"))}
        try:
            store = open_market(str(root))
            days = store.catalog()
            store.passed_over()
        except TicklineError as error:
            require_named(error, names)
            return
        for day in days:
            try:
                store.digest(day)
                ticks = store.load(day).ticks
            except TicklineError as error:
                require_named(error, names)
                continue
            assert day.rows in (None, ticks.num_rows)
            if not ticks.num_rows:
                continue
            clean, bad, _ = quarantine(ticks, day, SPEC)
            repeated = int(derive(ticks, day)["repeat"].sum())
            assert ticks.num_rows == clean.num_rows + bad.num_rows + repeated
            bid, ask = (clean[name].to_numpy() for name in PRICES)
            assert np.isfinite(bid).all()
            assert np.isfinite(ask).all()
            assert (bid > 0).all()
            assert (ask > bid).all()


def require_named(error: TicklineError, names: set[str]) -> None:
    """The message names the store or one of its files."""
    text = str(error)
    assert any(name in text for name in names), text


def pick(root: Path, place: float) -> Path | None:
    """One of the files of a store."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return files[int(place * len(files))] if files else None


# ---------------------------------------------------------------- damage to any file


def on_file(place: float, change: Callable[[Path], object]) -> Edit:
    def edit(root: Path) -> None:
        if path := pick(root, place):
            change(path)

    return edit


def cut(path: Path, at: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(at * len(data))])


def flip(path: Path, places: list[tuple[float, int]]) -> None:
    data = bytearray(path.read_bytes())
    for at, value in places if data else []:
        data[int(at * len(data))] ^= value
    path.write_bytes(bytes(data))


def move(path: Path, name: str, *, copy: bool) -> None:
    """Rename or copy; `{}` is the file's own name."""
    target = path.parent / name.replace("{}", path.name)
    if target.exists() or target.parent.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copy if copy else shutil.move)(path, target)


NAMES = [
    "{}.bak", "{}.gz", "{}.zst", "{}.zip", "copy of {}", "{} (1)", "old/{}", ".{}", "_{}", "x",
    "2025-03-03.csv", "ABC.csv", "ABC_2025-13-45.csv", "ABC-2025-03.csv", "date=.parquet",
    "date=20250303.parquet", "date=2025-03-05/part-0.parquet", "symbol=/{}", "symbol=A/date=1/{}",
    "ABC-bookTicker-2025-03.zip", "ABC-bookTicker-2025-13.zip", "ABC-trades-2025-02-30.zip",
    "ABC-aggTrades-2025-03-04.zip", "ABC-bookTicker-2025-03-04.csv.gz", "tickline.yaml",
]  # fmt: skip
places = st.lists(st.tuples(share, st.integers(1, 255)), min_size=1, max_size=6)
any_file = st.one_of(
    st.builds(lambda p, at: on_file(p, lambda path: cut(path, at)), share, share),
    st.builds(lambda p, at: on_file(p, lambda path: flip(path, at)), share, places),
    st.builds(
        lambda p, name, copy: on_file(p, lambda path: move(path, name, copy=copy)),
        share,
        st.sampled_from(NAMES),
        st.booleans(),
    ),
    st.builds(
        lambda p, data: on_file(p, lambda path: path.write_bytes(path.read_bytes() + data)),
        share,
        st.binary(max_size=40),
    ),
)


# ---------------------------------------------------------------- damage to text


def shuffle(text: str, seed: int) -> str:
    header, *rows = text.splitlines()
    order = np.random.default_rng(seed).permutation(len(rows))
    return "\n".join([header, *(rows[i] for i in order)]) + "\n"


def recell(text: str, row: float, column: float, cell: str) -> str:
    rows = text.splitlines()
    if not rows:
        return text
    at = int(row * len(rows))
    cells = rows[at].split(",")
    cells[int(column * len(cells))] = cell
    rows[at] = ",".join(cells)
    return "\n".join(rows) + "\n"


def drop(text: str, column: float) -> str:
    rows = [row.split(",") for row in text.splitlines()]
    return "".join(
        ",".join(cell for i, cell in enumerate(row) if i != int(column * len(rows[0]))) + "\n"
        for row in rows
    )


def again(text: str, row: float) -> str:
    rows = text.splitlines(keepends=True)
    at = int(row * len(rows))
    return "".join([*rows[:at], *rows[at : at + 1] * 2, *rows[at + 1 :]])


CELLS = [
    "", " ", "nan", "NaN", "inf", "-inf", "-1", "0", "1e999", "-0.0", "x", "é", "1,5", '"', "'1'",
    '"1"', "true", "null", "None", "9" * 20, "9" * 400, "1.5", "2025-03-03", "\0", "\r", "0x10",
    "1741010400000", "1741010400000000", "9223372036854775807", "-9223372036854775808",
    "2025-03-03T24:00:00Z", "2025-02-30T14:00:00Z", "1600-01-01T00:00:00Z", "9999-12-31T00:00:00Z",
    "0000-00-00T00:00:00Z", "2025-03-03T14:00:00+01:00", "2025-03-03T14:00:00",
]  # fmt: skip
ENCODINGS = ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp1252", "utf-7"]
ENDS = ["\r\n", "\r", "\n\n", "\n\r", " \n", ",\n", "\x0b", "\u2028"]
as_text = st.one_of(
    st.builds(lambda seed: lambda text: shuffle(text, seed), st.integers(0, 99)),
    st.builds(
        lambda row, column, cell: lambda text: recell(text, row, column, cell),
        st.one_of(st.just(0.0), share),
        share,
        st.one_of(st.sampled_from(CELLS), st.text(max_size=8)),
    ),
    st.builds(lambda column: lambda text: drop(text, column), share),
    st.builds(lambda row: lambda text: again(text, row), share),
    st.sampled_from(
        [
            lambda text: text.split("\n", 1)[-1],  # no header
            lambda text: text.split("\n", 1)[0],  # a header alone
            lambda text: text.replace(",", ";"),
            lambda text: text.replace(",", "\t"),
            lambda text: text + text,
            lambda text: text.upper(),
            lambda text: "sep=,\n" + text,
            lambda text: "\n" + text,
            lambda text: text.rstrip("\n"),
        ]
    ),
    st.builds(lambda end: lambda text: text.replace("\n", end), st.sampled_from(ENDS)),
)
encoding = st.one_of(st.just("utf-8"), st.sampled_from(ENCODINGS))


def retext(path: Path, change: Callable[[str], str], code: str) -> None:
    """Change the text of a CSV file, or of the CSV inside a zip."""
    data = path.read_bytes()
    archive = data[:2] == b"PK"
    try:
        if archive:
            with zipfile.ZipFile(io.BytesIO(data)) as old:
                name = old.namelist()[0]
                data = old.read(name)
        changed = change(data.decode()).encode(code, "replace")
    except Exception:  # an earlier edit has damaged the file: it stays as it is
        return
    if archive:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            new.writestr(name, changed)
    else:
        path.write_bytes(changed)


any_text = st.builds(
    lambda p, change, code: on_file(p, lambda path: retext(path, change, code)),
    share,
    as_text,
    encoding,
)


# ---------------------------------------------------------------- damage to tables


KINDS = [
    pa.string(), pa.large_string(), pa.binary(), pa.float32(), pa.float16(), pa.int32(), pa.int64(),
    pa.uint64(), pa.bool_(), pa.date32(), pa.null(), pa.decimal128(30, 12), pa.decimal256(40, 12),
    pa.timestamp("s", "UTC"), pa.timestamp("ms"), pa.timestamp("us", "America/New_York"),
    pa.timestamp("ns", "Nowhere/Else"), pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int32(), pa.float64()), pa.list_(pa.float64()), pa.time64("ns"),
    pa.duration("ns"),
]  # fmt: skip

# which Arrow or Polars cannot always compare or cast
RARE = [
    pa.string(), pa.float16(), pa.bool_(), pa.null(), pa.decimal256(40, 12), pa.list_(pa.float64()),
    pa.timestamp("ns", "Nowhere/Else"), pa.dictionary(pa.int32(), pa.float64()),
]  # fmt: skip


def recast(table: pa.Table, column: float, kind: pa.DataType) -> pa.Table:
    at = int(column * table.num_columns)
    try:
        values = table.column(at).cast(kind, safe=False)
    except pa.ArrowException:
        values = pa.array([[0.0]] * table.num_rows) if pa.types.is_list(kind) else None
        values = pa.nulls(table.num_rows, kind) if values is None else values
    return table.set_column(at, table.column_names[at], values)


def revalue(table: pa.Table, column: float, row: float, value: float | None) -> pa.Table:
    at, place = int(column * table.num_columns), int(row * table.num_rows)
    kind = table.column(at).type
    values = table.column(at).to_pylist()
    values[place : place + 1] = [None if not pa.types.is_floating(kind) else value]
    return table.set_column(at, table.column_names[at], pa.array(values, kind))


def rename(table: pa.Table, column: float, name: str) -> pa.Table:
    names = list(table.column_names)
    names[int(column * len(names))] = name
    return table.rename_columns(names)


def shift(table: pa.Table, seconds: int) -> pa.Table:
    if "timestamp" not in table.column_names:
        return table
    at = table.column_names.index("timestamp")
    try:
        time = table["timestamp"].cast(pa.int64()).to_numpy() + seconds * 10**9
    except pa.ArrowException:
        return table
    return table.set_column(at, "timestamp", pa.array(time, pa.timestamp("ns", "UTC")))


COLUMNS = [
    "timestamp", "bid_price", "bid_size", "price", "size", "label", "vwap", "last_trade",
    "feature_ema_1min", "sequence", "symbol", "date", "id", "trade_id", "buyer_is_maker", "x", "",
]  # fmt: skip
as_table = st.one_of(
    st.builds(
        lambda seed: (
            lambda table: table.take(
                pa.array(np.random.default_rng(seed).permutation(table.num_rows))
            )
        ),
        st.integers(0, 99),
    ),
    st.builds(
        lambda column, kind: lambda table: recast(table, column, kind),
        share,
        st.sampled_from(KINDS),
    ),
    st.builds(
        lambda column, row, value: lambda table: revalue(table, column, row, value),
        share,
        share,
        st.sampled_from([None, float("nan"), float("inf"), -1.0, 0.0, 1e300, 5e-324]),
    ),
    st.builds(
        lambda column, name: lambda table: rename(table, column, name),
        share,
        st.sampled_from(COLUMNS),
    ),
    st.builds(
        lambda column: lambda table: table.remove_column(int(column * table.num_columns)), share
    ),
    st.builds(
        lambda column, name: (
            lambda table: table.append_column(name, table.column(int(column * table.num_columns)))
        ),
        share,
        st.sampled_from(COLUMNS),
    ),
    st.builds(
        lambda seconds: lambda table: shift(table, seconds),
        st.sampled_from([-(10**9), -86_400, -30, 1, 86_400, 4 * 10**9]),
    ),
    st.sampled_from(
        [
            lambda table: table.slice(0, 0),
            lambda table: table.slice(0, 1),
            lambda table: pa.concat_tables([table, table]),
        ]
    ),
)


def retable(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    try:
        table = pq.ParquetFile(path).read()
        buffer = io.BytesIO()
        pq.write_table(change(table), buffer)
    except Exception:  # an earlier edit has damaged the file, or Parquet has no such type
        return
    path.write_bytes(buffer.getvalue())


any_table = st.builds(
    lambda p, change: on_file(p, lambda path: retable(path, change)), share, as_table
)


# ---------------------------------------------------------------- the tests


@pytest.mark.parametrize("kind", RARE, ids=str)
def test_a_column_of_any_type_is_read_right_or_refused_by_name(templates, kind):
    known = {"quotes": sorted(QUOTE_COLUMNS), "trades": sorted(TRADE_COLUMNS)}
    for folder, names in known.items():
        for name in names:

            def typed(root: Path, folder: str = folder, name: str = name) -> None:
                path = root / folder / "symbol=ABC" / f"date={DATES[0]}.parquet"
                retable(path, lambda table: with_column(table, name, kind))

            check(templates / "one day", [typed])


def with_column(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    """The table with a column of zeros, or of its own values, as `kind`."""
    own = name in table.column_names
    values = table[name] if own else pa.array(np.zeros(table.num_rows))
    at = table.column_names.index(name) if own else table.num_columns
    wide = (table if own else table.append_column(name, values)).set_column(at, name, values)
    return recast(wide, (at + 0.5) / wide.num_columns, kind)


@fuzz
@given(edits=st.lists(st.one_of(any_table, any_table, any_file), min_size=1, max_size=3))
def test_a_damaged_hive_store_is_read_right_or_refused_by_name(templates, edits):
    check(templates / "hive", edits)


@fuzz
@given(edits=st.lists(st.one_of(any_text, any_text, any_file), min_size=1, max_size=3))
def test_a_damaged_desk_store_is_read_right_or_refused_by_name(templates, edits):
    check(templates / "desk", edits)


@fuzz
@given(edits=st.lists(st.one_of(any_text, any_text, any_file), min_size=1, max_size=3))
def test_a_damaged_binance_store_is_read_right_or_refused_by_name(templates, edits):
    check(templates / "binance", edits)


@fuzz
@given(edits=st.lists(any_file, min_size=1, max_size=3))
def test_a_damaged_databento_store_is_read_right_or_refused_by_name(templates, edits):
    check(templates / "databento", edits)


@fuzz
@given(edits=st.lists(st.one_of(any_text, any_text, any_file), min_size=1, max_size=3))
def test_a_damaged_tardis_store_is_read_right_or_refused_by_name(templates, edits):
    check(templates / "tardis", edits)


@fuzz
@given(edits=st.lists(st.one_of(any_text, any_text, any_file), min_size=1, max_size=3))
def test_a_damaged_lobster_store_is_read_right_or_refused_by_name(templates, edits):
    check(templates / "lobster", edits)


@fuzz
@given(edits=st.lists(st.one_of(any_table, any_text, any_file), min_size=1, max_size=3))
def test_a_damaged_mapped_store_is_read_right_or_refused_by_name(templates, edits):
    check(templates / "taq", edits)


@pytest.mark.parametrize("kind", RARE, ids=str)
@pytest.mark.parametrize("name", ["date", "time", "sym", "bid", "bsize", "price", "side"])
def test_a_mapped_column_of_any_type_is_read_right_or_refused_by_name(templates, name, kind):
    def typed(root: Path) -> None:
        for path in root.glob("*.parquet"):
            if name in pq.read_schema(path).names:
                retable(path, lambda table: with_column(table, name, kind))

    check(templates / "taq", [typed])
