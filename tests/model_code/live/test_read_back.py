from model_code.live.messages import Decision
from model_code.live.read_back import ReadBack
from tests.support.redis import decision


def read(*numbers: int) -> ReadBack:
    found = ReadBack()
    for number in numbers:
        found.take(decision(number))
    return found


def test_decisions_in_order_are_counted() -> None:
    found = read(1, 2, 5)
    assert (found.decided, found.duplicated, found.reordered) == (3, 0, 0)
    one: Decision = decision(5)
    assert (one.symbol, one.session, 5) in found
    assert (one.symbol, one.session, 4) not in found


def test_a_decision_read_twice_is_no_reordered_one() -> None:
    found = read(1, 2, 3, 2, 3, 4)
    assert (found.decided, found.duplicated, found.reordered) == (4, 2, 0)


def test_a_decision_behind_a_later_one_is_reordered() -> None:
    found = read(1, 3, 2)
    assert (found.decided, found.duplicated, found.reordered) == (3, 0, 1)


def test_instruments_and_sessions_have_their_own_order() -> None:
    found = ReadBack()
    for one in (decision(5), decision(1, "B"), decision(1, session=2)):
        found.take(one)
    assert (found.decided, found.duplicated, found.reordered) == (3, 0, 0)
