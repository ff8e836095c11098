import numpy as np

from model_code.live.fold import Row
from model_code.live.slots import Slots, Waiting
from tests.support.live import quote
from tests.support.market import SYMBOLS


def waiting(sequence: int, symbol: str = SYMBOLS[0]) -> Waiting:
    one, window_TF = quote(sequence, symbol=symbol), np.zeros((64, 16), np.float32)
    row = Row(one.local_ns, one.bid_price, one.ask_price, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0, 0)
    return Waiting(one, window_TF, 0, 0, 0, row, 0)


def test_one_window_for_each_instrument_the_oldest_first() -> None:
    slots = Slots()
    for one in (waiting(1), waiting(2, SYMBOLS[1])):
        assert slots.drop(one.quote.symbol) is None
        slots.put(one)
    replaced = slots.drop(SYMBOLS[0])
    assert replaced is not None
    assert replaced.quote.sequence == 1
    slots.put(waiting(3))
    assert len(slots) == 2
    assert [one.quote.sequence for one in slots.take(1)] == [2]
    assert [one.quote.sequence for one in slots.take(9)] == [3]
    assert slots.take(1) == []
