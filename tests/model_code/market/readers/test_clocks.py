import datetime as dt

import numpy as np
import polars as pl
import pytest

from model_code.errors import DataError
from model_code.market.readers.clocks import (
    FIRST,
    LAST,
    SCALES,
    day_bounds,
    from_epoch,
    from_local,
    known_zone,
)

NOON = 1_723_118_400  # 2024-08-08 12:00 UTC in seconds
NS = 10**9


@pytest.mark.parametrize("unit", SCALES)
def test_a_time_in_its_unit_is_the_same_in_ns(unit):
    value = NOON * NS // SCALES[unit]
    assert from_epoch(np.array([value]), unit, "file").tolist() == [NOON * NS]


@pytest.mark.parametrize("stated", SCALES)
@pytest.mark.parametrize("unit", SCALES)
def test_a_time_in_another_unit_is_refused_with_the_unit_that_it_has(stated, unit):
    if stated == unit:
        return
    good, bad = (NOON * NS // SCALES[name] for name in (stated, unit))
    with pytest.raises(
        DataError, match=f"{bad} is not a time in {stated}.*one in {unit}"
    ) as caught:
        from_epoch(np.array([good, bad]), stated, "file", first_row=10)
    assert caught.value.where == "file, row 11"


@pytest.mark.parametrize("unit", SCALES)
def test_the_first_and_the_last_time_that_are_accepted(unit):
    per_day = 86_400 * NS // SCALES[unit]
    low, high = ((date - dt.date(1970, 1, 1)).days * per_day for date in (FIRST, LAST))
    assert len(from_epoch(np.array([low, high - 1]), unit, "file")) == 2
    for value in (low - 1, high, 0, -1, np.iinfo(np.int64).max):
        with pytest.raises(DataError, match="is not a time"):
            from_epoch(np.array([value]), unit, "file")


def naive(*texts):
    return pl.Series("time", texts).str.to_datetime(time_unit="ns", strict=True)


def test_a_local_time_is_in_utc_in_summer_and_winter():
    found = from_local(naive("2024-07-01 09:30:00", "2024-12-02 09:30:00"), "America/New_York", "x")
    hours = [dt.datetime.fromtimestamp(int(time) // NS, dt.UTC).hour for time in found]
    assert hours == [13, 14]


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("2024-11-03 01:30:00", "America/New_York"),  # twice
        ("2024-03-10 02:30:00", "America/New_York"),  # never
    ],
)
def test_a_local_time_that_is_there_twice_or_never_is_refused(text, zone):
    with pytest.raises(DataError, match="twice or never in America/New_York") as caught:
        from_local(naive("2024-07-01 09:30:00", text), zone, "file")
    assert caught.value.where == "file, row 2 of the batch"


def test_a_missing_local_time_is_refused():
    with pytest.raises(DataError, match="the time is missing"):
        from_local(naive("2024-07-01 09:30:00", None), "UTC", "file")


def test_a_utc_date_ends_where_the_next_one_begins():
    start, end = day_bounds(dt.date(2024, 8, 8))
    assert (start, end) == (NOON * NS - 43_200 * NS, NOON * NS + 43_200 * NS)
    assert day_bounds(dt.date(2024, 8, 9))[0] == end


def test_zones_of_the_iana_database_are_known():
    assert known_zone("America/New_York")
    assert not known_zone("America/New York")
    assert not known_zone("../etc/passwd")
