"""Whatever comes, in any order: every message ends in exactly one column."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.errors import DataError
from model_code.live.ledger import Ledger
from model_code.live.messages import Tick, encode
from model_code.live.path import Asked, LivePath
from model_code.live.reasons import SUPPRESSED, Column, Reason, column
from model_code.market.quality import row_rules
from model_code.market.row_check import LOCAL, WIDE
from model_code.settings import ValidationSpec
from tests.support.live import path, quote, trade, warm
from tests.support.market import SYMBOLS

ODD = st.sampled_from([1.0, 100.0, 100.05, 0.0, -1.0, math.nan, math.inf, 1e308, 5e-324])


@st.composite
def message(draw: st.DrawFn) -> Tick | bytes:
    sequence, at_ms = draw(st.integers(60, 90)), draw(st.sampled_from([600, 650, 700, 8e7, 1e9]))
    symbol = draw(st.sampled_from([*SYMBOLS, "unknown"]))
    if draw(st.booleans()):
        sound = quote(sequence, at_ms, symbol)
        names = st.sampled_from(["bid_price", "ask_price", "bid_size", "ask_size", "vwap"])
        odd = draw(st.dictionaries(names, ODD, max_size=2))
        one: Tick = quote(sequence, at_ms, symbol, **odd) if odd else sound
    else:
        one = trade(sequence, at_ms, symbol, price=draw(ODD), size=draw(ODD))
    payload = encode(one)
    return draw(st.sampled_from([one, payload, payload[:-1], b"", encode([one, one])]))


def settle(live: LivePath, asked: Asked, how: str, now_ns: int) -> None:
    if how == "fail":
        live.fail(asked)
    else:
        p = {"answer": 0.7, "nan": math.nan}[how]
        live.answer(asked, [p] * len(asked.waiting), now_ns)


@settings(max_examples=150)
@given(
    st.lists(st.one_of(message(), st.sampled_from(["ready", "answer", "fail", "nan"])), max_size=25)
)
def test_every_message_ends_in_one_column(steps: list[Tick | bytes | str]) -> None:
    live = path(SYMBOLS, stale_after_ns=10**9)
    warm(live)
    now_ns = quote(1, 700).local_ns
    at_the_model: list[Asked] = []
    for step in steps:
        if step == "ready":
            at_the_model += filter(None, [live.ready(now_ns, 1)])
        elif isinstance(step, str):
            if at_the_model:
                settle(live, at_the_model.pop(), step, now_ns)
        else:
            before = live.ledger.ended
            outcomes = live.take(step, now_ns)
            assert live.ledger.ended - before == len(outcomes)
            assert all(
                (one.letter is not None) == (one.column is Column.DEAD_LETTERED) for one in outcomes
            )
        assert live.ledger.balanced(live.waiting)
        assert live.ledger.lost >= 0
    for asked in at_the_model:
        live.fail(asked)
    live.stop()
    assert live.ledger.balanced()
    assert sum(live.ledger.reasons.values()) == (
        live.ledger.columns[Column.SUPPRESSED] + live.ledger.columns[Column.DEAD_LETTERED]
    )


def test_the_line_adds_up() -> None:
    ledger = Ledger(taken=1_005, lost=2)
    ledger.columns[Column.DECIDED] = 1_000
    for reason in (Reason.LATE, Reason.DUPLICATE, Reason.MALFORMED, Reason.WARMING):
        ledger.end(reason)
    assert not ledger.balanced()
    assert ledger.balanced(waiting=1)
    ledger.columns[Column.CONFLATED] += 1
    assert ledger.balanced()
    assert str(ledger) == (
        "ledger: in 1,005 = decided 1,000 + conflated 1 + suppressed 3 + dead-lettered 1; "
        "lost 2 reordered 1 duplicated 1"
    )
    ledger.taken += 1
    ledger.columns[Column.TRADES] += 1
    assert "in 1,006 = " in str(ledger)
    assert " + dead-lettered 1 + trades 1; " in str(ledger)


def test_every_rule_of_one_row_is_a_reason() -> None:
    rules = {rule.name for rule in row_rules(ValidationSpec())}
    assert {*LOCAL, WIDE} <= rules
    assert {*LOCAL, WIDE} <= set(Reason)
    assert column(Reason.CROSSED_QUOTE) is Column.DEAD_LETTERED
    assert column(Reason.LOCKED_QUOTE) is Column.SUPPRESSED
    assert set(Reason) > SUPPRESSED


def test_a_printed_ledger_is_read_again() -> None:
    ledger = Ledger(taken=12_345, lost=1, reordered=2, duplicated=3)
    ledger.columns.update({Column.DECIDED: 12_000, Column.SUPPRESSED: 300, Column.TRADES: 45})
    older = "ledger: in 7 = decided 7 + conflated 0; lost 0 reordered 0 duplicated 0\n"
    found = Ledger.parse(f"{older}{ledger}; partitions paused 1\nend\n")
    assert str(found) == str(ledger)
    assert found.balanced()
    with pytest.raises(DataError, match="no ledger"):
        Ledger.parse("nothing")
