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


def test_empty_store() -> None:
    with pytest.raises(MarketError, match="no instruments"):
        select((), instruments=(), train_days=1, test_date=None, where="store")
