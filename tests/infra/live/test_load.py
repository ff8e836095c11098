from itertools import islice

import pytest

from infra.live.load import bursts
from tests.support.live import quote
from tests.support.market import SYMBOLS


def test_a_burst_is_of_one_key() -> None:
    first, second = SYMBOLS[:2]
    ticks = [quote(1), quote(2), quote(1, 0.0, second), quote(3), quote(4)]
    found = list(bursts(ticks, {first: "a", second: "b"}, 3))
    assert [[(one.symbol, one.sequence) for one in burst] for burst in found] == [
        [(first, 1), (first, 2)], [(second, 1)], [(first, 3), (first, 4)],
    ]  # fmt: skip
    assert len(list(bursts(ticks, {first: "a", second: "a"}, 5))) == 1


@pytest.mark.parametrize("size", [1, 2, 7])
def test_bursts_keep_every_tick_in_order(size: int) -> None:
    ticks = [quote(number) for number in range(20)]
    found = bursts(ticks, {SYMBOLS[0]: "a"}, size)
    assert [one for burst in islice(found, 100) for one in burst] == ticks
