import datetime as dt
import errno
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.errors import StorageError
from model_code.market.day_parts import DayParts

DAYS = [dt.datetime(2025, 1, day, 12, tzinfo=dt.UTC) for day in (1, 2, 3)]


def frame(places: list[int], first: int = 0) -> pl.DataFrame:
    times = pl.Series("timestamp", [DAYS[i] for i in places], pl.Datetime("ns", "UTC"))
    values = [None if k % 3 == 0 else float(first + k) for k in range(len(places))]
    return pl.DataFrame([times, pl.Series("value", values, pl.Float64)])


@given(st.lists(st.lists(st.integers(0, 2))))
def test_each_day_has_its_rows_in_order(parts: list[list[int]]) -> None:
    frames = [frame(part, 100 * k) for k, part in enumerate(parts)]
    split, whole = DayParts(), pl.concat([frame([]), *frames])
    for day in reversed(DAYS):
        found = split.rows("a", day.date(), lambda: frames)
        expected = whole.filter(pl.col("timestamp") == day)
        assert pl.concat([frame([]), *found]).equals(expected, null_equal=True)


def test_files_are_kept_apart_and_read_once() -> None:
    split, read = DayParts(), []

    def rows(name: str, place: int) -> Iterator[pl.DataFrame]:
        read.append(name)
        yield frame([place, place])

    for _ in range(2):
        for place, name in enumerate("ab"):
            for day in DAYS:
                found = split.rows(name, day.date(), partial(rows, name, place))
                assert sum(map(len, found)) == (2 if day == DAYS[place] else 0)
    assert read == ["a", "b"]


def test_a_fault_of_the_file_is_raised_each_time() -> None:
    def broken() -> Iterator[pl.DataFrame]:
        yield frame([0])
        raise ValueError("no number")

    split = DayParts()
    for _ in range(2):
        with pytest.raises(ValueError, match="no number"):
            split.rows("a", DAYS[0].date(), broken)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, *_: int) -> int:
            return 0

        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    split = DayParts()
    monkeypatch.setattr(split, "_file", Full())
    with pytest.raises(StorageError, match="No space left on device"):
        split.rows("a", DAYS[0].date(), lambda: [frame([0])])
