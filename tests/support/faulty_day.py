"""A small instrument-day with every fault that validation knows, as quotes and trades."""

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa

from model_code.market.schema import InstrumentDay
from tests.support.market import epoch_ns

DAY = InstrumentDay(dt.date(2024, 8, 8), "AAA.test")
NS = pa.timestamp("ns", "UTC")


def faulty_day(seed: int, rows: int, *, kind: int = 0) -> tuple[pa.Table, pa.Table]:
    """Quotes and trades with faults at random places.

    The clock goes back and jumps ahead, rows repeat the row above, quotes are locked, crossed,
    one-sided, without sizes or too wide, prices jump, the market is silent for two minutes. Trades
    come before the first quote and after the last, out of order, twice, at bad prices.

    Args:
        seed: of the random places.
        rows: quotes, before some are repeated.
        kind: 0: trades without ids; 1: with ids that repeat; 2: numbered like the quotes; 3:
            without an aggressor flag. From 4 on the same in time order.
    """
    rng = np.random.default_rng(seed)

    def some(share: float) -> Any:
        return rng.choice(rows, max(int(share * rows), 1))

    start = epoch_ns(DAY.date)
    clean = start + np.cumsum(rng.integers(0, 40, rows)) * 10**6
    clean[rows // 2 :] += 120 * 10**9
    time = clean.copy()
    time[some(0.02)] += rng.integers(-(10**10), 10**10)
    time[some(0.01)] -= 10**7
    if seed % 3 == 0:
        time[some(0.001)] = start - 40 * 3_600 * 10**9
    mid = 60_000 + np.cumsum(rng.choice([-1, 0, 0, 1], rows))
    bid, ask = mid / 10, (mid + 1) / 10
    sizes = rng.integers(1, 100, (2, rows)) / 10
    bid[some(0.01)] = np.nan
    ask[some(0.01)] = -1.0
    locked, crossed, jumped = some(0.02), some(0.01), some(0.005)
    ask[locked] = bid[locked]
    ask[crossed] = bid[crossed] - 0.3
    bid[jumped] *= 1.3
    ask[jumped] *= 1.3
    ask[some(0.005)] *= 1.02
    sizes[0, some(0.01)] = 0.0
    quotes: dict[str, Any] = {
        "timestamp": pa.array(time, NS),
        "bid_price": bid,
        "ask_price": ask,
        "bid_size": sizes[0],
        "ask_size": sizes[1],
    }
    count = max(rows // 3, 2)
    traded = np.sort(rng.integers(clean[0] - 10**9, clean[-1] + 10**9, count)) // 10**6 * 10**6
    if kind < 4:
        traded[rng.choice(count, count // 20 + 1)] += rng.integers(-(10**9), 10**9)
    at = np.searchsorted(clean, traded).clip(0, rows - 1)
    price = (mid[at] + (rng.random(count) < 0.5)) / 10
    price[rng.choice(count, count // 50 + 1)] *= 1.5
    price[rng.choice(count, count // 50 + 1)] = np.nan
    trades: dict[str, Any] = {
        "timestamp": pa.array(traded, NS),
        "price": price,
        "size": rng.integers(0, 50, count) / 10,
    }
    if kind % 4 == 1:
        trades["trade_id"] = np.arange(count) if kind > 4 else rng.integers(0, count, count)
    if kind % 4 == 2:
        quotes["sequence"] = np.arange(rows) // 2 * 4 + 1
        trades["sequence"] = np.arange(count) * 12
    if kind % 4 != 3:
        trades["buyer_is_maker"] = rng.random(count) < 0.5
    order = np.sort(np.concatenate([np.arange(rows), some(0.05)]))
    return pa.table(quotes).take(pa.array(order)), pa.table(trades)
