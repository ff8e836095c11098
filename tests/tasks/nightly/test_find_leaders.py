"""Where the leaders of a night come from."""

import datetime as dt
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from model_code.artifacts import ArtifactStore
from model_code.errors import DataError
from model_code.features.leaders import suggest
from model_code.settings import FeatureSpec, Leaders
from tasks.caching.stage import RunRef
from tasks.nightly.find_leaders import _quotes, find_leaders
from tasks.nightly.records import CleanDay
from tests.support.market import DATES, SYMBOLS, ticks


@pytest.fixture
def days(tmp_path: Path, store: ArtifactStore) -> tuple[CleanDay, ...]:
    found = []
    for date in DATES:
        for symbol in SYMBOLS:
            path = tmp_path / f"{symbol}-{date}.parquet"
            pq.write_table(ticks(400, 1, symbol, date), path)
            found.append(CleanDay(date=date, symbol=symbol, ticks=store.put(path)))
    return tuple(found)


def test_the_specification_decides(run: RunRef, days: tuple[CleanDay, ...]) -> None:
    leaders: Leaders = {SYMBOLS[1]: (SYMBOLS[0],)}
    found = find_leaders.fn(run, days, FeatureSpec(leaders=leaders), DATES[1])
    assert found.leaders == leaders
    assert found.note == f"leaders (the specification): {SYMBOLS[1]} at {SYMBOLS[0]}"


@pytest.mark.parametrize(
    ("leaders", "message"),
    [
        ({"CCC.test": (SYMBOLS[0],)}, "names CCC.test"),
        ({SYMBOLS[0]: ("CCC.test",)}, "names CCC.test"),
        ({SYMBOLS[0]: (SYMBOLS[0],)}, f"{SYMBOLS[0]} look at itself"),
    ],
)
def test_wrong_leaders_are_refused(
    run: RunRef, days: tuple[CleanDay, ...], leaders: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        find_leaders.fn(run, days, FeatureSpec(leaders=leaders), DATES[1])


def test_solo_looks_at_nobody(run: RunRef, days: tuple[CleanDay, ...]) -> None:
    found = find_leaders.fn(run, days, FeatureSpec(feature_set="solo"), DATES[1])
    assert found.leaders == {}
    assert found.note == "leaders (the instruments' names): nobody looks at another"


def test_the_newest_training_date_is_measured(run: RunRef, days: tuple[CleanDay, ...]) -> None:
    found = find_leaders.fn(run, days, FeatureSpec(), DATES[1])
    assert found.source == f"measured on {DATES[0]}"
    quotes = {
        day.symbol: _quotes(run.store.open(day.ticks)) for day in days if day.date == DATES[0]
    }
    assert found.table == suggest(quotes, frozenset(SYMBOLS))


def test_an_instrument_absent_on_the_test_date_does_not_lead(
    run: RunRef, days: tuple[CleanDay, ...]
) -> None:
    before = dt.date(2024, 8, 8)
    present = tuple(day for day in days if day.date == before or day.symbol == SYMBOLS[1])
    found = find_leaders.fn(run, present, FeatureSpec(), DATES[1])
    assert found.table is not None
    assert SYMBOLS[0] not in {name for others in found.leaders.values() for name in others}
