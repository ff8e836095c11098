"""The time-ordered split: boundaries, purge, embargo, strides, refusals."""

import datetime as dt
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_code.errors import DataError, StorageError
from model_code.features.dataset import FeatureTable, TableDay, TableMeta
from model_code.features.split import Split, require_apart, split
from model_code.settings import FeatureSpec, SplitSpec
from tests.support.market import DATES, SYMBOLS

MS = 1_000_000
DAY_NS = 86_400_000_000_000
EARLIER = dt.date(2024, 8, 7)


def table(
    dates: tuple[dt.date, ...] = DATES,
    symbols: tuple[str, ...] = SYMBOLS,
    rows: int = 1000,
    from_ms: float = 0.0,
    step_ms: float = 10.0,
    label: int | None = None,
) -> FeatureTable:
    """Rows every `step_ms`, from `from_ms` after midnight, one segment per instrument-day."""
    days: list[TableDay] = []
    stamps: list[NDArray[np.int64]] = []
    segments: list[NDArray[np.int32]] = []
    for date in dates:
        for k, symbol in enumerate(symbols):
            days.append(TableDay(date=date, symbol=symbol, first=rows * len(days), rows=rows))
            start = (date - dt.date(1970, 1, 1)).days * DAY_NS + int((from_ms + k) * MS)
            stamps.append(start + np.arange(rows, dtype=np.int64) * int(step_ms * MS))
            segments.append(np.full(rows, len(days) - 1, np.int32))
    n = rows * len(days)
    label_N = np.random.default_rng(0).integers(0, 2, n).astype(np.int8)
    meta = TableMeta(
        symbols=symbols,
        dates=dates,
        days=tuple(days),
        spec=FeatureSpec(horizon_ms=100.0),
        features_version="0",
        simulated=True,
    )
    return FeatureTable(
        features_NF=np.zeros((n, 16), np.float32),
        timestamp_N=np.concatenate(stamps),
        label_N=label_N if label is None else np.full(n, label, np.int8),
        segment_N=np.concatenate(segments),
        symbol_N=np.zeros(n, np.int16),
        spread_bps_N=np.zeros(n, np.float32),
        bid_N=np.ones(n),
        ask_N=np.ones(n),
        meta=meta,
    )


SPEC = SplitSpec(validation_fraction=0.25, embargo_ms=500.0)


def ns(text: str) -> int:
    return int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))


def test_purge_and_embargo_to_the_row() -> None:
    source = table(symbols=SYMBOLS[:1])
    found = split(source, SPEC)
    time = source.timestamp_N
    boundary = ns(found.report.validation_from)
    first_end = 63 + int((1000 - 63) * 0.75)
    assert boundary == time[first_end]
    # the last training label ends strictly before validation begins: 10 rows of 10 ms go
    assert time[found.train_ends.max() + 1] + 100 * MS == boundary
    assert found.train_ends.tolist() == list(range(63, first_end - 10))
    assert found.report.train.purged == 10
    # the first validation window begins 500 ms after the boundary
    assert time[found.validation_ends.min() - 63] == boundary + 500 * MS
    assert found.validation_ends.tolist() == list(range(first_end + 50 + 63, 1000))
    # the first test window begins 500 ms after midnight
    assert found.test_ends.tolist() == list(range(1000 + 50 + 63, 2000))
    assert found.report.test.embargoed == 50
    for part in (found.report.train, found.report.validation, found.report.test):
        assert part.candidates == part.purged + part.embargoed + part.kept
        assert part.windows == part.kept
        assert 0.3 < part.label_rate < 0.7
        assert ns(part.first) < ns(part.last)


def test_validation_is_purged_before_midnight() -> None:
    # a source's own labels may cover the day's last row, here 5 ms before midnight
    source = table(symbols=SYMBOLS[:1], from_ms=86_400_000 - 10_000 + 5)
    found = split(source, SPEC)
    assert found.report.validation.purged == 10
    assert found.validation_ends.max() == 999 - 10
    assert found.report.test.embargoed == 0  # the test day begins long after midnight


def test_boundaries_are_common_to_all_instruments_and_the_pool_sets_them() -> None:
    source = table()
    found = split(source, SPEC)
    time, boundary = source.timestamp_N, ns(found.report.validation_from)
    assert (time[found.train_ends] + 100 * MS < boundary).all()
    assert (time[found.validation_ends - 63] >= boundary + 500 * MS).all()
    for part in (found.train_ends, found.validation_ends, found.test_ends):
        days = np.searchsorted([day.first for day in source.meta.days], part, side="right") - 1
        assert len({source.meta.days[day].symbol for day in days}) == 2
    before = found.report.train.candidates + found.report.validation.candidates
    assert found.report.validation.candidates == pytest.approx(0.25 * before, rel=0.01)


def test_strides_are_even_and_the_same_every_time() -> None:
    source = table()
    spec = SplitSpec(train_windows=50, validation_windows=20, test_windows=10, embargo_ms=0.0)
    found, again = split(source, spec), split(source, spec)
    assert [len(p) for p in (found.train_ends, found.validation_ends, found.test_ends)] == [
        50,
        20,
        10,
    ]
    assert found.report.train.windows == 50 < found.report.train.kept
    everything = split(source, SplitSpec(embargo_ms=0.0)).train_ends
    position = np.searchsorted(everything, found.train_ends)
    assert position[0] == 0
    assert position[-1] == len(everything) - 1
    assert np.ptp(np.diff(position)) <= 1
    assert np.array_equal(found.train_ends, again.train_ends)


def test_dates_after_a_given_test_date_are_not_used() -> None:
    source = table(dates=(EARLIER, *DATES))
    found = split(source, SPEC, DATES[0])
    assert found.report.test_date == DATES[0]
    assert found.test_ends.max() < 4000
    assert found.train_ends.max() < found.validation_ends.max() < 2000
    assert split(source, SPEC).report.test_date == DATES[1]


@pytest.mark.parametrize(
    ("source", "test_date", "message"),
    [
        (table(dates=DATES[:1]), None, "needs its own ticks and those of an earlier date"),
        (table(), dt.date(2030, 1, 1), "test date 2030-01-01 needs its own ticks"),
        (table(), DATES[0], "those of an earlier date"),
        (table(rows=60), None, "no window of 64 rows"),
        (table(rows=66, symbols=SYMBOLS[:1]), None, "train part has 0 windows"),
        (table(label=1), None, r"train part has .* labels \[1\]"),
        (table(label=-1), None, "no window of 64 rows with an observed label"),
        (table(rows=250, step_ms=3.0), None, "validation part has 0 windows"),
    ],
    ids=["one date", "absent", "first", "short", "purged", "one class", "no label", "embargoed"],
)
def test_unusable_tables_are_refused(
    source: FeatureTable, test_date: dt.date | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        split(source, SPEC, test_date)


def test_an_empty_test_day_is_refused() -> None:
    source = table(symbols=SYMBOLS[:1])
    source.label_N[1000:] = -1
    with pytest.raises(DataError, match="test part has 0 windows"):
        split(source, SPEC)


def test_saved_and_loaded(tmp_path: Path) -> None:
    found = split(table(), SPEC)
    found.save(tmp_path / "split")
    again = Split.load(tmp_path / "split")
    assert again.report == found.report
    assert np.array_equal(again.train_ends, found.train_ends)
    assert np.array_equal(again.validation_ends, found.validation_ends)
    assert np.array_equal(again.test_ends, found.test_ends)


def test_an_invalid_split_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a split"):
        Split.load(tmp_path)
    split(table(), SPEC).save(tmp_path)
    (tmp_path / "ends.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="not a split"):
        Split.load(tmp_path)


def test_an_unwritable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        split(table(), SPEC).save(tmp_path / "file" / "split")


def test_parts_of_a_split_are_apart() -> None:
    rows = table()
    chosen = split(rows, SplitSpec(embargo_ms=0.0))
    require_apart(rows, chosen)


@pytest.mark.parametrize(("part", "later"), [("train", "validation"), ("validation", "test")])
def test_a_split_without_purge_is_refused(part: str, later: str) -> None:
    rows = table()
    chosen = split(rows, SplitSpec(embargo_ms=0.0))
    # looks back on the row on which the last window of the part before ends
    near = getattr(chosen, f"{part}_ends").max() + 63
    broken = replace(chosen, **{f"{later}_ends": np.r_[near, getattr(chosen, f"{later}_ends")]})
    with pytest.raises(DataError, match=rf"windows reach to .*, but {later} windows look back to"):
        require_apart(rows, broken)


def test_rare_opportunities_are_sampled_by_class_on_validation_and_test_only(
    tmp_path: Path,
) -> None:
    source = table(rows=6000)
    random = np.random.default_rng(3)
    source.label_N[:] = random.uniform(size=len(source.label_N)) < 0.01
    spec = SplitSpec(embargo_ms=0.0, train_windows=2000, validation_windows=1000, test_windows=2000)
    found = split(source, spec)
    kept = split(source, SplitSpec(embargo_ms=0.0))
    assert np.isin(found.train_ends, kept.train_ends).all()
    assert source.label_N[found.train_ends].mean() < 0.02, "their shares set the probabilities"
    for part, ends, weights, every in (
        ("validation", found.validation_ends, found.validation_weights, kept.validation_ends),
        ("test", found.test_ends, found.test_weights, kept.test_ends),
    ):
        report, positives = getattr(found.report, part), int(source.label_N[every].sum())
        assert weights is not None
        assert weights.sum() == pytest.approx(len(every))
        assert (report.positives, report.positives_kept) == (positives, positives)
        assert report.windows == len(ends) < report.kept
        assert report.label_rate == pytest.approx(positives / len(every)), "of all windows"
        assert report.sampling.startswith(f"{positives} of {positives} with an opportunity, ")

    found.save(tmp_path / "split")
    again = Split.load(tmp_path / "split")
    assert again.report == found.report
    np.testing.assert_array_equal(again.validation_weights, found.validation_weights)
    np.testing.assert_array_equal(again.test_weights, found.test_weights)


def rare(rows: int) -> FeatureTable:
    """Two dates of two instruments, a hundredth of the rows opportunities, some not observed."""
    source, random = table(rows=rows), np.random.default_rng(3)
    source.label_N[:] = random.uniform(size=len(source.label_N)) < 0.01
    source.label_N[random.uniform(size=len(source.label_N)) < 0.05] = -1
    return source


@pytest.mark.parametrize("block_rows", [1, 7, 64, 1000])
@pytest.mark.parametrize("limit", [300, 1000, 10**6])
def test_blocks_of_any_size_choose_the_same_windows(
    monkeypatch: pytest.MonkeyPatch, block_rows: int, limit: int
) -> None:
    source = rare(2000)
    spec = SplitSpec(train_windows=limit, validation_windows=limit, test_windows=limit)
    whole = split(source, spec)
    monkeypatch.setattr("model_code.features.split.BLOCK_ROWS", block_rows)
    monkeypatch.setattr("model_code.features.split.BIN_BITS", 5)
    found = split(source, spec)
    assert found.report == whole.report
    assert (found.test_weights is None) == (limit != 1000)
    for name in ("train_ends", "validation_ends", "test_ends", "validation_weights"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_memory_grows_with_the_windows_and_not_with_the_rows() -> None:
    spec = SplitSpec(train_windows=2000, validation_windows=1000, test_windows=1000)
    peaks = []
    for rows in (100_000, 1_000_000):
        source = rare(rows)
        tracemalloc.start()
        split(source, spec)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_an_even_stride_leaves_nothing_about_weights(tmp_path: Path) -> None:
    split(table(), SPEC).save(tmp_path)
    with np.load(tmp_path / "ends.npz") as ends:
        assert sorted(ends) == ["test", "train", "validation"]
    assert "positives" not in (tmp_path / "report.json").read_text()
    again = Split.load(tmp_path)
    assert (again.validation_weights, again.test_weights) == (None, None)
