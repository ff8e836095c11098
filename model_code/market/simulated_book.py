"""Queue-reactive best-quote book on a self-exciting clock: the kernel of the simulated market.

Event times: Hawkes process with two exponential kernels (bursts of a millisecond, activity of
seconds), excited by every event and harder by price moves; exact by Ogata's thinning, since the
intensity only falls between events. Event kinds, given the queues: Huang, Lehalle and Rosenbaum,
"Simulating and Analyzing Order Book Data: The Queue-Reactive Model" (JASA 2015): limit orders join,
cancellations grow with the queue, market orders lean to the thin side; a queue that runs out moves
the price, the other side follows within a few events. Sources of the arrivals: Bacry, Mastromatteo
and Muzy, "Hawkes Processes in Finance" (2015).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit


class Book(NamedTuple):
    """Parameters of one instrument's book (times in seconds, sizes in mean queue sizes).

    Attributes:
        base: events per second that nothing excites.
        burst, burst_decay: jump of the intensity per event, and its decay per second.
        swell, swell_decay: likewise for the slow kernel.
        shock: how many times harder a price move excites the burst kernel.
        market, cancel: shares of market orders and of cancellations, queues at their mean.
        lean: how strongly market orders lean to the thin side (exponent of the queue ratio).
        jump: chance that a price move goes one more tick (geometric).
        follow: chance per event that a wide spread closes to one tick.
        revert: share of those closings that undo the move.
    """

    base: float = 16.0
    burst: float = 280.0
    burst_decay: float = 700.0
    swell: float = 0.6
    swell_decay: float = 2.5
    shock: float = 2.0
    market: float = 0.16
    cancel: float = 0.36
    lean: float = 0.8
    jump: float = 0.85
    follow: float = 0.4
    revert: float = 0.3


class Tape(NamedTuple):
    """What the book printed: N quotes and M trades, times in seconds from the start."""

    time: npt.NDArray[np.float64]
    bid: npt.NDArray[np.int64]
    ask: npt.NDArray[np.int64]
    bid_size: npt.NDArray[np.float64]
    ask_size: npt.NDArray[np.float64]
    trade_row: npt.NDArray[np.int64]
    trade_price: npt.NDArray[np.int64]
    trade_size: npt.NDArray[np.float64]
    trade_sell: npt.NDArray[np.bool_]


@njit(cache=True)  # type: ignore[untyped-decorator]
def run_book(
    book: Book, rng: np.random.Generator, seconds: float, start: int, capacity: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
    """Simulate one session; returns (rows (N, 8), N).

    Columns: time, bid, ask, bid_size, ask_size, traded size (0: none), traded price, 1 if sold.
    """
    rows = np.zeros((capacity, 8))
    bid, ask = start, start + 1
    bid_size, ask_size = 1.0, 1.0
    rising = True  # the direction of the last price move
    burst = swell = time = 0.0
    n = 0
    while n < capacity:
        # the clock
        bound = book.base + burst + swell
        wait = rng.exponential(1.0 / bound)
        time += wait
        burst *= np.exp(-book.burst_decay * wait)
        swell *= np.exp(-book.swell_decay * wait)
        if time >= seconds:
            break
        if rng.random() * bound > book.base + burst + swell:
            continue
        # the event
        traded, price, sold, moved = 0.0, 0, False, False
        if ask - bid > 1 and rng.random() < book.follow:
            moved = True
            up = rising != (rng.random() < book.revert)
            if up:
                bid, bid_size = ask - 1, rng.lognormal(-0.7, 1.2)
            else:
                ask, ask_size = bid + 1, rng.lognormal(-0.7, 1.2)
        else:
            to_ask = book.market * (bid_size / ask_size) ** book.lean
            to_bid = book.market * (ask_size / bid_size) ** book.lean
            to_ask, to_bid = min(to_ask, 1.0), min(to_bid, 1.0)
            cut_ask, cut_bid = book.cancel * ask_size, book.cancel * bid_size
            add = max(1.0 - 2.0 * (book.market + book.cancel), 0.05) + book.cancel
            draw = rng.random() * (to_ask + to_bid + cut_ask + cut_bid + add)
            size = rng.lognormal(-1.6, 1.4)
            if draw < to_ask + to_bid:
                sold = draw >= to_ask
                queue = bid_size if sold else ask_size
                traded, price = min(size, queue), bid if sold else ask
                if sold:
                    bid_size -= size
                else:
                    ask_size -= size
            elif draw < to_ask + to_bid + cut_ask:
                ask_size -= min(size, ask_size * rng.random() * 1.05)
            elif draw < to_ask + to_bid + cut_ask + cut_bid:
                bid_size -= min(size, bid_size * rng.random() * 1.05)
            elif rng.random() < 0.5:
                ask_size += size
            else:
                bid_size += size
            if min(bid_size, ask_size) < 1e-4:
                moved = True
                step = 1
                while rng.random() < book.jump:
                    step += 1
                rising = ask_size < bid_size
                if rising:
                    ask, ask_size = ask + step, rng.lognormal(-0.3, 1.2)
                else:
                    bid, bid_size = bid - step, rng.lognormal(-0.3, 1.2)
        burst += book.burst * (book.shock if moved else 1.0)
        swell += book.swell
        rows[n, 0], rows[n, 1], rows[n, 2] = time, bid, ask
        rows[n, 3], rows[n, 4] = bid_size, ask_size
        rows[n, 5], rows[n, 6], rows[n, 7] = traded, price, sold
        n += 1
    return rows, n
