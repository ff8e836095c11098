"""The order book against the exchange's rules and against a plain dictionary."""

import numpy as np
import pytest

from model_code.market.level2 import book as module
from model_code.market.level2.book import OrderBook
from model_code.market.level2.frames import BookSnapshot, BookUpdate, Levels

BIDS: Levels = ((10.0, 1.0), (9.0, 2.0))
ASKS: Levels = ((11.0, 3.0), (12.0, 4.0))
NAN = np.nan


def snapshot(last: int) -> BookSnapshot:
    return BookSnapshot("", last, BIDS, ASKS)


def update(
    first: int, last: int, previous: int | None = None, bids: Levels = ((9.5, 5.0),)
) -> BookUpdate:
    return BookUpdate("X", first, last, previous, bids, ())


def counts(book: OrderBook) -> tuple[int, int, int, int]:
    return book.received, book.applied, book.stale, book.gaps


def test_spot_events_follow_the_snapshot_and_each_other() -> None:
    book = OrderBook()
    assert not book.update(update(1, 10))
    assert book.row(2) is None
    assert book.snapshot(snapshot(10))
    assert book.row(2) == [10.0, 9.0, 1.0, 2.0, 11.0, 12.0, 3.0, 4.0]
    assert book.update(update(11, 12, bids=((10.0, 0.0),)))
    row = book.row(3) or []
    np.testing.assert_array_equal(row[:6], [9.0, NAN, NAN, 2.0, NAN, NAN])
    np.testing.assert_array_equal(row[6:], [11.0, 12.0, NAN, 3.0, 4.0, NAN])
    assert book.update(update(13, 13))
    assert not book.update(update(13, 13))  # sent twice
    assert counts(book) == (4, 2, 2, 0)


def test_futures_events_name_the_event_before_them() -> None:
    book = OrderBook()
    assert not book.update(update(1, 9, 0))  # ends before the snapshot
    assert not book.update(update(9, 10, 9))
    assert book.snapshot(snapshot(10))
    assert counts(book) == (2, 1, 1, 0)
    assert book.update(update(14, 20, 10))
    assert not book.update(update(21, 22, 19))
    assert counts(book) == (4, 2, 1, 1)


@pytest.mark.parametrize(
    ("snapshot_at", "first", "taken"),
    [
        (10, update(11, 12), True),
        (10, update(5, 11), True),
        (10, update(12, 13), False),
        (10, update(9, 10, 8), True),
        (10, update(10, 15, 9), True),
        (10, update(11, 15, 10), True),
        (10, update(12, 15, 11), False),  # the event that covers the snapshot is missing
    ],
)
def test_the_first_event_must_cover_the_snapshot(
    snapshot_at: int, first: BookUpdate, taken: bool
) -> None:
    waits, follows = OrderBook(), OrderBook()
    waits.update(first)
    assert waits.snapshot(snapshot(snapshot_at)) is taken
    follows.snapshot(snapshot(snapshot_at))
    assert follows.update(first) is taken
    for book in (waits, follows):
        assert counts(book) == (1, int(taken), 0, int(not taken))
        assert (book.row(2) is not None) is taken


def test_a_gap_discards_the_book_until_the_next_snapshot() -> None:
    book = OrderBook()
    book.snapshot(snapshot(10))
    assert book.update(update(11, 12))
    assert not book.update(update(14, 15))
    assert not book.update(update(16, 17))
    assert book.row(2) is None
    assert counts(book) == (3, 1, 0, 1)
    assert book.snapshot(snapshot(15))  # with what waited: 16 to 17
    row = book.row(3) or []
    assert row[:6] == [10.0, 9.5, 9.0, 1.0, 5.0, 2.0]
    assert counts(book) == (3, 2, 1, 1)


def test_a_snapshot_that_is_older_than_the_book_is_ignored() -> None:
    book = OrderBook()
    book.snapshot(snapshot(10))
    book.update(update(11, 12))
    assert not book.snapshot(snapshot(11))
    assert book.update(update(13, 14))
    assert book.snapshot(BookSnapshot("", 20, ((7.0, 1.0),), ASKS))
    assert book.row(1) == [7.0, 1.0, 11.0, 3.0]


def test_events_that_waited_too_long_leave_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    book = OrderBook()
    for number in range(11, 15):
        book.update(update(number, number))
    assert not book.snapshot(snapshot(10))
    assert book.gaps == 1


def test_crossed_and_one_sided_books_give_no_row_and_are_counted() -> None:
    book = OrderBook()
    book.snapshot(snapshot(10))
    book.update(update(11, 11, bids=((11.0, 1.0),)))
    assert book.row(2) is None
    book.update(update(12, 12, bids=((11.0, 0.0), (10.0, 0.0), (9.0, 0.0), (5.0, 0.0))))
    assert book.row(2) is None
    assert (book.crossed, book.one_sided) == (1, 1)
    book.update(update(13, 13))
    assert book.row(1) == [9.5, 5.0, 11.0, 3.0]


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_a_plain_dictionary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    book, plain = OrderBook(), (dict(BIDS), dict(ASKS))
    book.snapshot(snapshot(0))
    for number in range(1, 400):
        bids, asks = (
            tuple((float(price), float(max(0, size))) for price, size in zip(
                rng.integers(low, low + 30, 3), rng.integers(-2, 9, 3), strict=True))
            for low in (1, 40)
        )  # fmt: skip
        assert book.update(BookUpdate("X", number, number, None, bids, asks))
        for side, changes in zip(plain, (bids, asks), strict=True):
            side.update(changes)
            for price in [price for price, size in side.items() if size == 0.0]:
                del side[price]
        best = sorted(plain[0].items(), reverse=True)[:10], sorted(plain[1].items())[:10]
        if not (best[0] and best[1]) or best[0][0][0] >= best[1][0][0]:
            assert book.row(10) is None
            continue
        wanted = np.full((4, 10), np.nan)
        for place, found in enumerate(best):
            wanted[2 * place : 2 * place + 2, : len(found)] = np.array(found).T
        np.testing.assert_array_equal(book.row(10) or [], wanted.ravel())
