import math
from itertools import count
from typing import Any

import numpy as np
import pytest

from model_code.errors import ConfigError
from model_code.features.served import SeenFeatures
from model_code.live.messages import Tick, decode, encode
from model_code.live.path import LivePath, Outcome
from model_code.live.reasons import Column, Reason
from tests.support.live import MS, path, quote, trade, warm
from tests.support.market import SYMBOLS


def end(live: LivePath, message: Any, now_ns: int | None = None) -> Outcome:
    (outcome,) = live.take(message, message.local_ns if now_ns is None else now_ns)
    return outcome


def test_a_decision_says_what_it_is_of() -> None:
    ticks = count(0, 10)
    live = path(clock=lambda: next(ticks), stale_after_ns=50 * MS, side="buy")
    warm(live, count=63)
    last = quote(64, 650, exchange_ns=17)
    assert live.take(encode(last), last.local_ns) == []
    assert live.waiting == 1
    asked = live.ready(last.local_ns + MS)
    assert asked is not None
    assert asked.x_BTF.shape == (1, 64, 16)
    (found,) = live.answer(asked, [0.5], last.local_ns + 2 * MS, flags=("in-process",))
    assert (found.symbol, found.sequence, found.exchange_ns, found.local_ns) == (
        last.symbol, 64, 17, last.local_ns,
    )  # fmt: skip
    assert (found.model_version, found.threshold, found.decision, found.side) == (
        7, 0.5, True, "buy",
    )  # fmt: skip
    assert found.deadline_ns == last.local_ns + 50 * MS
    assert found.flags == ("in-process",)
    stages = found.latency
    assert (stages.decode, stages.features, stages.queue, stages.inference) == (10, 10, 10, 10)
    assert stages.publish == 10
    assert (found.received_ns, found.decided_ns) == (last.local_ns, last.local_ns + 2 * MS)
    assert live.ledger.balanced()


def test_another_version_answers_with_its_own_threshold() -> None:
    live = path()
    warm(live)
    asked = live.ready(0)
    assert asked is not None
    (found,) = live.answer(asked, [0.7], 0, model_version=6, threshold=0.8, flags=("fallback",))
    assert (found.model_version, found.threshold, found.decision) == (6, 0.8, False)


def test_a_newer_window_replaces_one_that_was_not_sent() -> None:
    live = path()
    following = warm(live)
    newer = quote(following, 660)
    assert end(live, newer) == Outcome(Column.CONFLATED, None, newer.symbol, following - 1)
    asked = live.ready(newer.local_ns)
    assert asked is not None
    assert [one.quote for one in asked.waiting] == [newer]
    assert np.array_equal(asked.x_BTF[0], live.group.instruments[newer.symbol].features.window_TF())


def test_a_window_at_the_model_is_a_copy() -> None:
    live = path()
    following = warm(live)
    asked = live.ready(0)
    assert asked is not None
    before = asked.x_BTF.copy()
    live.take(quote(following, 660), quote(following, 660).local_ns)
    assert np.array_equal(asked.x_BTF, before)


@pytest.mark.parametrize(
    "gap",
    [quote(70, 700), trade(70, 700), quote(1, 700, session=1)],
    ids=["quotes", "a trade", "session"],
)
def test_after_a_gap_nothing_is_decided_until_the_window_is_full(gap: Any) -> None:
    live = path()
    warm(live)
    first, *rest = live.take(gap, gap.local_ns)
    assert first.column is Column.CONFLATED  # it was complete, but never sent
    sent = [one.reason for one in rest]
    for number in range(1, 65):
        one = quote(gap.sequence + number, 700 + number, session=gap.session)
        sent += [outcome.reason for outcome in live.take(one, one.local_ns)]
    warming = [reason for reason in sent if reason is Reason.WARMING]
    assert len(warming) == 63
    assert live.waiting == 1
    assert live.ledger.lost == (5 if gap.session == 0 else 0)


def test_late_and_repeated_messages_change_no_window() -> None:
    clean, marred = path(), path()
    warm(clean)
    for sequence in range(1, 65):
        one = quote(sequence, 10.0 * sequence)
        marred.take(one, one.local_ns)
        if sequence > 5:
            assert end(marred, one).reason is Reason.DUPLICATE
            assert end(marred, quote(sequence - 2, 0.0)).reason is Reason.DUPLICATE
    a, b = clean.ready(0), marred.ready(0)
    assert a is not None
    assert b is not None
    assert np.array_equal(a.x_BTF, b.x_BTF)
    assert marred.ledger.duplicated == 2 * 59


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bid_price": math.nan}, Reason.MISSING_BID),
        ({"ask_price": math.nan}, Reason.MISSING_ASK),
        ({"ask_price": math.inf}, Reason.NOT_FINITE),
        ({"bid_size": math.inf}, Reason.NOT_FINITE),
        ({"bid_price": 0.0}, Reason.PRICE_NOT_POSITIVE),
        ({"bid_price": -1.0}, Reason.PRICE_NOT_POSITIVE),
        ({"vwap": 0.0}, Reason.PRICE_NOT_POSITIVE),
        ({"ask_size": 0.0}, Reason.SIZE_NOT_POSITIVE),
        ({"bid_size": -3.0}, Reason.SIZE_NOT_POSITIVE),
        ({"bid_price": 100.2, "ask_price": 100.1}, Reason.CROSSED_QUOTE),
        ({"bid_price": 100.1, "ask_price": 100.1}, Reason.LOCKED_QUOTE),
        ({"ask_price": 110.0}, Reason.SPREAD_TOO_WIDE),
        ({"symbol": "unknown"}, Reason.UNKNOWN_SYMBOL),
    ],
    ids=str,
)
def test_a_quote_that_validation_would_set_aside_is_no_row(
    changes: dict[str, Any], reason: Reason
) -> None:
    live = path()
    following = warm(live)
    bad = quote(following, 700, **changes)
    found = end(live, bad)
    assert found.reason is reason
    assert live.waiting == 1  # what waited still waits
    if found.letter is not None:
        assert decode(found.letter.payload)[0].sequence == bad.sequence
        assert (found.letter.reason, found.letter.at_ns) == (reason, bad.local_ns)
        assert "symbol" in found.letter.detail
    else:
        assert reason is Reason.LOCKED_QUOTE
    unknown = reason is Reason.UNKNOWN_SYMBOL  # its numbers are of another sequence
    newer = quote(following if unknown else following + 1, 701)
    assert end(live, newer).column is Column.CONFLATED


def test_bytes_that_are_no_message_are_put_aside_as_received() -> None:
    live = path()
    (found,) = live.take(b"\xc1", 5)
    assert (found.column, found.reason) == (Column.DEAD_LETTERED, Reason.MALFORMED)
    assert found.letter is not None
    assert (found.letter.payload, found.letter.at_ns) == (b"\xc1", 5)
    assert live.ledger.balanced()


def test_a_message_may_hold_the_ticks_of_one_instant() -> None:
    live = path(SYMBOLS)
    ticks: list[Tick] = [quote(1), trade(2), quote(1, symbol=SYMBOLS[1])]
    found = live.take(encode(ticks), ticks[0].local_ns)
    assert [one.reason for one in found] == [Reason.WARMING, None, Reason.WARMING]
    assert live.ledger.taken == 3


def test_what_comes_too_late_is_suppressed() -> None:
    live = path(stale_after_ns=5 * MS)
    following = warm(live)
    at = quote(following - 1, 10.0 * (following - 1)).local_ns
    assert live.ready(at + 6 * MS) is None
    newer = quote(following, 700)
    live.take(newer, newer.local_ns)
    asked = live.ready(newer.local_ns + 5 * MS)
    assert asked is not None
    assert live.answer(asked, [0.9], newer.local_ns + 6 * MS) == []
    assert live.ledger.reasons[Reason.STALE] == 2
    assert live.ledger.balanced()


def test_windows_behind_a_batch_of_late_ones_are_asked_about() -> None:
    live = path(SYMBOLS[:2], stale_after_ns=5 * MS)
    for symbol in SYMBOLS[:2]:
        warm(live, symbol=symbol)
    newer = quote(65, 700, SYMBOLS[1])
    live.take(newer, newer.local_ns)
    asked = live.ready(newer.local_ns, most=1)
    assert asked is not None
    assert asked.waiting[0].quote == newer
    assert live.ledger.reasons[Reason.STALE] == 1


def test_a_window_that_is_not_finite_costs_no_other_its_answer() -> None:
    live = path(SYMBOLS[:2])
    for symbol in SYMBOLS[:2]:
        warm(live, symbol=symbol)
    broken = quote(65, 700, bid_size=1e308, ask_size=1e308)
    live.take(broken, broken.local_ns)
    live.take(quote(66, 710), broken.local_ns)
    asked = live.ready(broken.local_ns)
    assert asked is not None
    assert [one.quote.symbol for one in asked.waiting] == [SYMBOLS[1]]
    assert np.isfinite(asked.x_BTF).all()
    assert len(live.answer(asked, [0.9], broken.local_ns)) == 1
    assert live.ledger.reasons[Reason.INFERENCE_FAILED] == 1
    assert live.ledger.balanced()


def test_answers_must_fit_the_windows() -> None:
    live = path()
    warm(live)
    asked = live.ready(0)
    assert asked is not None
    with pytest.raises(ConfigError, match="2 probabilities for 1 windows"):
        live.answer(asked, [0.5, 0.5], 0)
    assert live.waiting == 1
    assert live.answer(asked, [math.nan], 0) == []
    assert live.ledger.reasons[Reason.INFERENCE_FAILED] == 1
    assert live.ready(0) is None


def test_what_waits_at_the_end_is_counted() -> None:
    live = path(SYMBOLS)
    warm(live)
    warm(live, symbol=SYMBOLS[1])
    asked = live.ready(0, most=1)
    assert asked is not None
    assert live.waiting == 2
    live.fail(asked)
    live.stop()
    assert (live.waiting, live.ledger.reasons[Reason.STOPPED]) == (0, 1)
    assert live.ledger.balanced()


def test_a_row_behind_another_instrument_s_is_counted() -> None:
    live = path(SYMBOLS, SeenFeatures(feature_set="paired", leaders={SYMBOLS[1]: SYMBOLS[:1]}))
    for one in (quote(1, 5, SYMBOLS[1]), quote(1, 4), quote(2, 6)):
        live.take(one, one.local_ns)
    assert live.overtaken == 1
