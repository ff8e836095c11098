"""Queue-reactive best-quote book on a self-exciting clock: the kernel of the simulated market.

Event times: Hawkes process with two exponential kernels (bursts of a millisecond, activity of
seconds), excited by every event and harder by price moves; exact by Ogata's thinning, since the
intensity only falls between events (Ogata, "On Lewis' Simulation Method for Point Processes", IEEE
Transactions on Information Theory, 1981). Event kinds, given the queues: Huang, Lehalle and
Rosenbaum, "Simulating and Analyzing Order Book Data: The Queue-Reactive Model" (JASA 2015): limit
orders join, cancellations grow with the queue, market orders lean to the thin side. An empty queue
moves the price, and the other side follows within a few events. Source of the arrivals: Bacry,
Mastromatteo and Muzy, "Hawkes Processes in Finance" (2015).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled

_EMPTY = 1e-4  # a smaller queue counts as empty


class Book(NamedTuple):
    """Parameters of one instrument's book (times in seconds, sizes in mean queue sizes).

    Attributes:
        base: baseline intensity, events per second.
        burst, burst_decay: jump of the intensity per event, and its decay per second.
        swell, swell_decay: likewise for the slow kernel.
        shock: how many times harder a price move excites the burst kernel.
        market, cancel: shares of market orders and of cancellations, queues at their mean.
        lean: how strongly market orders lean to the thin side (exponent of the queue ratio).
        jump: chance that a price move goes one more tick (geometric).
        follow: chance per event that a wide spread closes to one tick.
        revert: share of those closings that undo the move.
        depth: log standard deviation of a fresh queue.
    """

    base: float = 10.0
    burst: float = 305.0
    burst_decay: float = 650.0
    swell: float = 0.5
    swell_decay: float = 1.4
    shock: float = 2.5
    market: float = 0.13
    cancel: float = 0.22
    lean: float = 0.7
    jump: float = 0.85
    follow: float = 0.62
    revert: float = 0.12
    depth: float = 1.8


@compiled
def run_book(
    book: Book, rng: np.random.Generator, seconds: float, start: int, capacity: int
) -> npt.NDArray[np.float64]:
    """Simulate one session from a one-tick book at `start` ticks; returns (N, 8), N <= capacity.

    Columns: time (s), bid, ask (ticks), bid size, ask size (of mean queue), size traded (0: no
    trade) and its price (ticks), 1 if it was sold. One row per event, all of them at the touch.
    """
    rows = np.zeros((capacity, 8))
    bid, ask, bid_size, ask_size = start, start + 1, 1.0, 1.0
    rising = True  # the direction of the last price move
    time = burst = swell = 0.0
    n = 0
    while n < capacity:
        wait, burst, swell = next_arrival(book, rng, burst, swell)
        time += wait
        if time >= seconds:
            break
        traded, price, sold, moved = 0.0, 0, False, True
        if ask - bid > 1 and rng.random() < book.follow:
            if rising != (rng.random() < book.revert):
                bid, bid_size = ask - 1, rng.lognormal(-0.7, book.depth)
            else:
                ask, ask_size = bid + 1, rng.lognormal(-0.7, book.depth)
        else:
            bid_size, ask_size, traded, sold = touch(book, rng, bid_size, ask_size)
            price = bid if sold else ask
            moved = min(bid_size, ask_size) < _EMPTY
            if moved:
                rising = ask_size < bid_size
                step = rng.geometric(1.0 - book.jump)
                if rising:
                    ask, ask_size = ask + step, rng.lognormal(-0.3, book.depth)
                else:
                    bid, bid_size = bid - step, rng.lognormal(-0.3, book.depth)
        burst += book.burst * (book.shock if moved else 1.0)
        swell += book.swell
        rows[n, 0], rows[n, 1], rows[n, 2] = time, bid, ask
        rows[n, 3], rows[n, 4] = bid_size, ask_size
        rows[n, 5], rows[n, 6], rows[n, 7] = traded, price, sold
        n += 1
    return rows[:n].copy()


@compiled
def next_arrival(
    book: Book, rng: np.random.Generator, burst: float, swell: float
) -> tuple[float, float, float]:
    """Ogata's thinning: seconds to the next event, and both excitations decayed until then."""
    total = 0.0
    while True:
        bound = book.base + burst + swell
        wait = rng.exponential(1.0 / bound)
        total += wait
        burst *= np.exp(-book.burst_decay * wait)
        swell *= np.exp(-book.swell_decay * wait)
        if rng.random() * bound <= book.base + burst + swell:
            return total, burst, swell


@compiled
def touch(
    book: Book, rng: np.random.Generator, bid_size: float, ask_size: float
) -> tuple[float, float, float, bool]:
    """One event at the best quotes; returns (bid size, ask size, size traded, whether sold)."""
    buy = min(book.market * (bid_size / ask_size) ** book.lean, 1.0)
    sell = min(book.market * (ask_size / bid_size) ** book.lean, 1.0)
    cut_ask, cut_bid = book.cancel * ask_size, book.cancel * bid_size
    join = max(1.0 - 2.0 * (book.market + book.cancel), 0.05) + book.cancel
    draw = rng.random() * (buy + sell + cut_ask + cut_bid + join)
    size = rng.lognormal(-1.6, 1.4)
    if draw < buy:
        return bid_size, ask_size - size, min(size, ask_size), False
    if draw < buy + sell:
        return bid_size - size, ask_size, min(size, bid_size), True
    # a twentieth of large enough cancellations takes the whole queue
    share = rng.random() * 1.05
    if draw < buy + sell + cut_ask:
        return bid_size, ask_size - min(size, ask_size * share), 0.0, False
    if draw < buy + sell + cut_ask + cut_bid:
        return bid_size - min(size, bid_size * share), ask_size, 0.0, False
    if rng.random() < 0.5:
        return bid_size, ask_size + size, 0.0, False
    return bid_size + size, ask_size, 0.0, False
