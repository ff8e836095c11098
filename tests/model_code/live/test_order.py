import pytest

from model_code.live.messages import Tick
from model_code.live.order import GAPS, Found, Order
from model_code.live.reasons import Reason
from tests.support.live import NOON, quote, trade

FINE = Found(None, 0, reset=False)
FAR = NOON + 10**15


def check(order: Order, *ticks: Tick, now_ns: int = FAR) -> list[Found]:
    return [order.check(tick, now_ns, 0) for tick in ticks]


def test_consecutive_numbers_are_in_order_whatever_the_first() -> None:
    assert check(Order(), quote(41), trade(42), quote(43)) == [FINE] * 3


def test_a_gap_resets_and_its_size_is_known() -> None:
    assert check(Order(), quote(1), trade(5), quote(6))[1:] == [Found(None, 3, reset=True), FINE]


def test_a_message_of_a_gap_is_late_and_no_longer_lost() -> None:
    found = check(Order(), quote(1), quote(6), quote(3), quote(3), quote(2), quote(5), quote(7))
    late, duplicate = Found(Reason.LATE, -1, reset=False), Found(Reason.DUPLICATE, 0, reset=False)
    assert found[2:] == [late, duplicate, late, late, FINE]


def test_a_number_seen_before_is_a_duplicate() -> None:
    found = check(Order(), quote(1), quote(2), quote(2), quote(1), quote(3))
    assert [one.reason for one in found] == [None, None, Reason.DUPLICATE, Reason.DUPLICATE, None]


def test_only_the_newest_gaps_are_remembered() -> None:
    order = Order()
    check(order, *(quote(2 * i) for i in range(GAPS + 3)))
    assert len(order.gaps) == GAPS
    assert check(order, quote(1), quote(2 * GAPS + 1)) == [
        Found(Reason.DUPLICATE, 0, reset=False),
        Found(Reason.LATE, -1, reset=False),
    ]


def test_a_new_session_begins_a_new_sequence() -> None:
    order = Order()
    found = check(order, quote(90), quote(1, session=1), quote(2, session=1), quote(91), quote(3))
    assert found[1:3] == [Found(None, 0, reset=True), FINE]
    assert [one.reason for one in found[3:]] == [Reason.LATE, Reason.LATE]


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        ((quote(1, 5), quote(2, 4)), Reason.LATE),
        ((quote(1, 5), quote(2, 5)), None),
        ((quote(1, 5), trade(2, 4)), Reason.LATE),
        ((quote(1, 5), trade(2, 5)), None),
        ((trade(1, 5), trade(2, 4)), Reason.LATE),
        ((trade(1, 5), quote(2, 4)), None),  # the row does not count the trade
        (
            (quote(1, 5, source_sequence=9), trade(2, 5, source_sequence=8)),
            Reason.LATE,  # the row should have counted it
        ),
        ((quote(1, 5, source_sequence=9), trade(2, 5, source_sequence=10)), None),
    ],
)
def test_a_stamp_behind_is_late(ticks: tuple[Tick, Tick], expected: Reason | None) -> None:
    first, second = check(Order(), *ticks)
    assert first == FINE
    assert second.reason == expected


def test_a_stamp_ahead_of_the_clock_blocks_nothing() -> None:
    order, now = Order(), NOON + 10_000_000
    found = check(order, quote(1, 5), quote(2, 30_000), quote(3, 6), now_ns=now)
    assert [one.reason for one in found] == [None, Reason.AHEAD_OF_CLOCK, None]
    assert order.check(quote(4, 11), now, 1_000_000).reason is None
