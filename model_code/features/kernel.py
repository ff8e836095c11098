"""The one definition of the features: a compiled step from a tick and a state to 16 numbers.

Batch (`batch.py`) and incremental (`incremental.py`) callers both run `run`, the same machine code,
so that they agree bit for bit. State is float64, output float32.

Everything is scale-free: prices are counted in ticks (the tightest spread seen so far in the
segment) and sizes in the running mean size, so one standardiser serves every instrument.
"Running" means an exponential average over events (quote rows), not over clock time.

A new segment begins at the first row, at a new UTC date and after a gap longer than the reset gap;
all state begins anew there. Missing values (NaN) make the features that need them 0.

Shapes: N rows, F features (16).
"""

import math

import numpy as np

from model_code.compiled import compiled

DAY_NS = 86_400_000_000_000
SIZE_ALPHA = 2.0 / (256 + 1)  # weight of the newest row in the running size and running ema_1min
VARIANCE_ALPHA = 2.0 / (128 + 1)  # weight of the newest row in the running variance of mid moves
VWAP_ALPHA = 2.0 / (64 + 1)  # weight of the newest row in the running distance to the vwap
SIGMA_LIMIT = 10.0  # a move over more deviations than this says no more
SIGMA_FLOOR = 1e-3  # ticks: after a long quiet stretch a move stays finite
LIMIT = 32.0  # no feature leaves [-LIMIT, LIMIT]; only broken prices come near

TICK = np.dtype(
    [
        ("timestamp", np.int64),
        ("bid_price", np.float64),
        ("ask_price", np.float64),
        ("bid_size", np.float64),
        ("ask_size", np.float64),
        ("last_trade", np.float64),
        ("vwap", np.float64),
        ("feature_ema_1min", np.float64),
        ("buy_volume", np.float64),
        ("sell_volume", np.float64),
        ("trade_count", np.float64),
    ]
)
"""One row of input: the columns of `market.schema.TICKS` the features use; missing is NaN."""

STATE = np.dtype(
    [
        ("timestamp", np.int64),  # of the newest row
        ("segment", np.int64),  # number of the current segment, -1 before the first row
        ("rows", np.int64),  # rows in the current segment
        ("tick", np.float64),  # tightest spread so far
        ("size", np.float64),  # running mean of (bid_size + ask_size) / 2; NaN until a size is seen
        ("variance", np.float64),  # running variance of mid moves
        ("vwap_offset", np.float64),  # running mean of mid - vwap; NaN until a vwap is seen
        ("ema_1min", np.float64),  # running mean of feature_ema_1min; NaN until one is seen
        ("bid_price", np.float64),
        ("ask_price", np.float64),
        ("bid_size", np.float64),
        ("ask_size", np.float64),
        ("since", np.int64),  # timestamp of the segment's first row
    ]
)
"""What one instrument's stream remembers between rows; what others may see of it (`pairs`)."""


def new_state() -> np.ndarray:
    """The state before an instrument's first row: shape (1,), dtype `STATE`."""
    state_1 = np.zeros(1, STATE)
    state_1["segment"] = -1
    return state_1


@compiled
def _slog(x):  # type: ignore[no-untyped-def]
    return math.copysign(math.log1p(abs(x)), x)


@compiled
def _running(mean, value, alpha):  # type: ignore[no-untyped-def]
    if math.isnan(mean):
        return value
    return mean + alpha * (value - mean)


@compiled
def _usable(tick, state):  # type: ignore[no-untyped-def]
    # written so that NaN fails, except where NaN means "missing"
    prices = 0.0 < tick["bid_price"] < tick["ask_price"] < math.inf
    bid_size = math.isnan(tick["bid_size"]) or 0.0 < tick["bid_size"] < math.inf
    ask_size = math.isnan(tick["ask_size"]) or 0.0 < tick["ask_size"] < math.inf
    volumes = 0.0 <= tick["buy_volume"] < math.inf and 0.0 <= tick["sell_volume"] < math.inf
    count = 0.0 <= tick["trade_count"] < math.inf
    ordered = state["segment"] < 0 or tick["timestamp"] >= state["timestamp"]
    return prices and bid_size and ask_size and volumes and count and ordered


@compiled
def _begin_segment(state, tick):  # type: ignore[no-untyped-def]
    """As if the tick had been preceded by itself."""
    spread = tick["ask_price"] - tick["bid_price"]
    state["segment"] += 1
    state["rows"] = 0
    state["tick"] = spread
    state["size"] = state["vwap_offset"] = state["ema_1min"] = math.nan
    state["variance"] = (0.5 * spread) ** 2
    state["since"] = tick["timestamp"]
    _remember(state, tick)


@compiled
def _remember(state, tick):  # type: ignore[no-untyped-def]
    state["timestamp"] = tick["timestamp"]
    state["bid_price"], state["ask_price"] = tick["bid_price"], tick["ask_price"]
    state["bid_size"], state["ask_size"] = tick["bid_size"], tick["ask_size"]


@compiled
def _order_flow(state, tick):  # type: ignore[no-untyped-def]
    """Size that joined the bid or left the ask, less what did the opposite; NaN if not known."""
    flow = 0.0
    if tick["bid_price"] >= state["bid_price"]:
        flow += tick["bid_size"]
    if tick["bid_price"] <= state["bid_price"]:
        flow -= state["bid_size"]
    if tick["ask_price"] <= state["ask_price"]:
        flow -= tick["ask_size"]
    if tick["ask_price"] >= state["ask_price"]:
        flow += state["ask_size"]
    return flow


@compiled
def _sizes_and_trades(state, tick, fresh, feature_F):  # type: ignore[no-untyped-def]
    bid_size, ask_size = tick["bid_size"], tick["ask_size"]
    sized = not math.isnan(bid_size + ask_size)
    if sized:
        state["size"] = _running(state["size"], 0.5 * (bid_size + ask_size), SIZE_ALPHA)
    size = state["size"]
    if sized:
        feature_F[1] = (bid_size - ask_size) / (bid_size + ask_size)
        feature_F[2] = math.log(bid_size / size)
        feature_F[3] = math.log(ask_size / size)
    flow = _order_flow(state, tick)
    if sized and not math.isnan(flow):
        feature_F[9] = _slog(flow / size)
    bought, sold = tick["buy_volume"], tick["sell_volume"]
    if not fresh and not math.isnan(size):
        feature_F[10] = _slog((bought - sold) / size)
        feature_F[11] = math.log1p((bought + sold) / size)
    if not fresh:
        feature_F[12] = math.log1p(tick["trade_count"])


@compiled
def _references(state, tick, mid, feature_F):  # type: ignore[no-untyped-def]
    """The mid against slower prices, and the 1-minute average against its own running mean."""
    if math.isfinite(tick["last_trade"]):
        feature_F[13] = _slog((tick["last_trade"] - mid) / state["tick"])
    if math.isfinite(tick["vwap"]):
        offset = mid - tick["vwap"]
        state["vwap_offset"] = _running(state["vwap_offset"], offset, VWAP_ALPHA)
        feature_F[14] = _slog((offset - state["vwap_offset"]) / state["tick"])
    if math.isfinite(tick["feature_ema_1min"]):
        state["ema_1min"] = _running(state["ema_1min"], tick["feature_ema_1min"], SIZE_ALPHA)
        feature_F[15] = tick["feature_ema_1min"] - state["ema_1min"]


@compiled
def step(state, tick, reset_gap_ns, feature_F):  # type: ignore[no-untyped-def]
    """Advance `state` by one clean tick and write its 16 features."""
    fresh = (
        state["segment"] < 0
        or tick["timestamp"] // DAY_NS != state["timestamp"] // DAY_NS
        or tick["timestamp"] - state["timestamp"] > reset_gap_ns
    )
    if fresh:
        _begin_segment(state, tick)

    bid, ask = tick["bid_price"], tick["ask_price"]
    mid, spread = 0.5 * (bid + ask), ask - bid
    state["tick"] = min(state["tick"], spread)
    unit = state["tick"]
    bid_move, ask_move = bid - state["bid_price"], ask - state["ask_price"]
    mid_move = 0.5 * (bid_move + ask_move)
    floor = SIGMA_FLOOR * unit
    before = max(math.sqrt(state["variance"]), floor)
    state["variance"] = _running(state["variance"], mid_move * mid_move, VARIANCE_ALPHA)

    feature_F[:] = 0.0
    feature_F[0] = _slog(spread / unit)
    feature_F[4] = _slog(bid_move / unit)
    feature_F[5] = _slog(ask_move / unit)
    feature_F[6] = min(max(mid_move / before, -SIGMA_LIMIT), SIGMA_LIMIT)
    feature_F[7] = math.log(max(math.sqrt(state["variance"]), floor) / unit)
    feature_F[8] = math.log1p((tick["timestamp"] - state["timestamp"]) / 1000.0)
    _sizes_and_trades(state, tick, fresh, feature_F)
    _references(state, tick, mid, feature_F)
    for k in range(feature_F.shape[0]):
        feature_F[k] = min(max(feature_F[k], -LIMIT), LIMIT)

    state["rows"] += 1
    _remember(state, tick)


@compiled
def run(state_1, ticks_N, reset_gap_ns, features_NF, segment_N, states_N):  # type: ignore[no-untyped-def]
    """Step through `ticks_N`; return how many rows were taken (fewer than N: that row is unfit).

    Args:
        state_1: `new_state()` or what the previous chunk left; changed in place.
        ticks_N: rows of one instrument, dtype `TICK`.
        reset_gap_ns: a longer gap begins a new segment.
        features_NF: float32, written.
        segment_N: int32, written: number of each row's segment, counted from 0.
        states_N: dtype `STATE`, written: the state after each row.
    """
    for i in range(ticks_N.shape[0]):
        if not _usable(ticks_N[i], state_1[0]):
            return i
        step(state_1[0], ticks_N[i], reset_gap_ns, features_NF[i])
        segment_N[i] = state_1[0]["segment"]
        states_N[i] = state_1[0]
    return ticks_N.shape[0]
