import datetime as dt

import pytest

from model_code.errors import DataError, MarketError
from model_code.market.schema import InstrumentDay
from model_code.market.selection import Selection, select

D = [dt.date(2024, 8, day) for day in (6, 7, 8, 9)]
CATALOG = tuple(
    InstrumentDay(date, symbol)
    for date in D
    for symbol in ("A.x", "B.x")
    if not (symbol == "B.x" and date == D[-1])
)


def choose(**changes: object) -> Selection:
    arguments: dict[str, object] = {
        "instruments": (),
        "train_days": 2,
        "test_date": None,
        "where": "store",
    }
    return select(CATALOG, **(arguments | changes))  # type: ignore[arg-type]


def test_newest_day_is_the_test_day_and_the_days_before_it_train() -> None:
    chosen = choose()
    assert {day.date for day in chosen.test} == {D[3]}
    assert {day.date for day in chosen.train} == {D[1], D[2]}


def test_instrument_without_a_test_day_is_reported() -> None:
    assert choose().warnings == ("B.x has no ticks on 2024-08-09: used for training only",)
    assert choose(test_date="2024-08-08").warnings == ()


def test_a_named_instrument_missing_on_the_test_day_fails() -> None:
    with pytest.raises(MarketError, match=r"no ticks on the test date 2024-08-09 for B\.x"):
        choose(instruments=("A.x", "B.x"))


def test_unknown_instrument_lists_the_known_ones() -> None:
    with pytest.raises(MarketError, match=r"instruments not in the store: C\.x") as caught:
        choose(instruments=("A.x", "C.x"))
    assert "choose among A.x, B.x" in str(caught.value)


def test_only_one_date_leaves_nothing_to_train_on() -> None:
    with pytest.raises(DataError, match="nothing to train on before the test date"):
        choose(test_date="2024-08-06")


def test_absent_or_malformed_test_date() -> None:
    with pytest.raises(MarketError, match="no ticks on the test date 2024-08-10"):
        choose(test_date="2024-08-10")
    with pytest.raises(DataError, match="not a date: 'yesterday'"):
        choose(test_date="yesterday")


def test_dates_in_the_future_are_left_out_with_a_warning() -> None:
    chosen = choose(today=D[2])
    assert {day.date for day in chosen.test} == {D[2]}
    assert {day.date for day in chosen.train} == {D[0], D[1]}
    assert chosen.warnings == ("dates in the future left out: 2024-08-09",)
    assert choose(today=D[3]).warnings == choose().warnings
    with pytest.raises(MarketError, match="no ticks on the test date 2024-08-09"):
        choose(today=D[2], test_date="2024-08-09")


def test_a_named_instrument_that_may_be_missing_is_a_warning() -> None:
    chosen = choose(instruments=("A.x", "B.x"), allow_missing=("B.x",))
    assert [day.symbol for day in chosen.test] == ["A.x"]
    assert chosen.warnings == ("B.x has no ticks on 2024-08-09: used for training only",)


def long_catalog(earlier: int, later: int = 0) -> tuple[InstrumentDay, ...]:
    """A.x every day from 1 to 20 August; B.x on days around the 10th, not on it."""
    days = [InstrumentDay(dt.date(2024, 8, day), "A.x") for day in range(1, 21)]
    days += [InstrumentDay(dt.date(2024, 8, 10 - i), "B.x") for i in range(1, earlier + 1)]
    days += [InstrumentDay(dt.date(2024, 8, 10 + i), "B.x") for i in range(1, later + 1)]
    return tuple(days)


def choose_the_tenth(catalog: tuple[InstrumentDay, ...], **changes: object) -> Selection:
    arguments: dict[str, object] = {
        "instruments": (),
        "train_days": 2,
        "test_date": "2024-08-10",
        "where": "store",
    }
    return select(catalog, **(arguments | changes))  # type: ignore[arg-type]


def test_an_instrument_with_five_earlier_dates_must_have_the_test_date() -> None:
    assert choose_the_tenth(long_catalog(4)).warnings == (
        "B.x has no ticks on 2024-08-10: used for training only",
    )
    with pytest.raises(
        MarketError, match=r"no ticks on the test date 2024-08-10 for B\.x"
    ) as caught:
        choose_the_tenth(long_catalog(5))
    assert caught.value.remedy == (
        "wait for the missing file, or go on without: --allow-missing 'B.x'"
    )
    chosen = choose_the_tenth(long_catalog(5), allow_missing=("B.x",))
    assert [day.symbol for day in chosen.test] == ["A.x"]


def test_dates_after_the_test_date_do_not_count_as_earlier() -> None:
    chosen = choose_the_tenth(long_catalog(1, later=6))
    assert chosen.warnings == ("B.x has no ticks on 2024-08-10: used for training only",)


def test_empty_store() -> None:
    with pytest.raises(MarketError, match="no instruments"):
        select((), instruments=(), train_days=1, test_date=None, where="store")
