import numpy as np
import pytest

from model_code.market.notes import NO_SEQUENCE
from model_code.market.stream.merge import Traded, TradeMerge
from model_code.market.trades import Trades


def trades(times: list[int]) -> Trades:
    n = len(times)
    price = np.arange(1.0, n + 1)
    return Trades(np.array(times), NO_SEQUENCE, price, price * 2, np.arange(n) % 2 == 0)


def pieces(whole: Trades, size: int) -> list[Trades]:
    return [whole.take(slice(at, at + size)) for at in range(0, len(whole.time_ns), size)]


@pytest.mark.parametrize("size", [1, 2, 10])
@pytest.mark.parametrize("rows", [1, 2, 10])
def test_rows_count_the_trades_since_the_row_above(size: int, rows: int) -> None:
    whole = trades([1, 2, 2, 5, 5, 6, 30])
    merge = TradeMerge(iter(pieces(whole, size)))
    times = np.array([2, 5, 5, 7, 20])
    found = Traded.joined(
        [merge.traded(times[at : at + rows], NO_SEQUENCE) for at in range(0, 5, rows)]
    )
    assert found.before.tolist() == [1, 3, 3, 6, 6]
    assert found.count.tolist() == [0, 2, 0, 3, 0]  # the first row counts none
    assert found.price.tolist() == [1, 3, 3, 6, 6]
    assert found.vwap.tolist() == [1, 28 / 12, 28 / 12, 182 / 42, 182 / 42]
    assert found.sold.tolist() == [0, 6, 0, 10, 0]
    assert found.bought.tolist() == [0, 4, 0, 20, 0]


def test_only_the_trades_around_the_newest_row_are_kept() -> None:
    whole = trades(list(range(1000)))
    most = 0
    merge = TradeMerge(iter(pieces(whole, 10)))
    for time in range(1, 1000, 7):
        found = merge.traded(np.array([time]), NO_SEQUENCE)
        assert found.before.tolist() == [time]
        most = max(most, len(merge._trades.time_ns))
    assert most <= 30


def test_all_pieces_are_read_by_the_end() -> None:
    left = iter(pieces(trades([1, 2, 3]), 1))
    merge = TradeMerge(left)
    merge.traded(np.array([1]), NO_SEQUENCE)
    merge.finish()
    assert next(left, None) is None
