"""Definition of the 16 features: name, formula, unit and source, in column order.

`kernel.step` computes the formulas; this table documents them. Notation: `slog(x)` is
sign(x) * ln(1 + |x|), `tick` the tightest spread so far, `size` the running mean of
(bid_size + ask_size) / 2 and `sigma` the running deviation of mid moves, all within the segment;
`mean_n` is an exponential mean over about n rows and `d` the change since the previous row.
A feature with missing inputs is 0. On a segment's first row changes, flow and trades are 0.
"""

from dataclasses import dataclass
from pathlib import Path

from model_code.artifacts import hash_bytes

_CONT = "Cont, Kukanov, Stoikov 2014, 'The Price Impact of Order Book Events'"
_GOULD = "Gould, Bonart 2016, 'Queue Imbalance as a One-Tick-Ahead Price Predictor'"
_ROLL = "Hasbrouck 2007, 'Empirical Market Microstructure', ch. 3"
_RISK = "RiskMetrics 1996 technical document, exponentially weighted volatility"
_ACD = "Engle, Russell 1998, 'Autoregressive Conditional Duration'"
_LEE = "Lee, Ready 1991, 'Inferring Trade Direction from Intraday Data'"
_VWAP = "Berkowitz, Logue, Noser 1988, 'The Total Cost of Transactions on the NYSE'"
_BOOK = "Cartea, Jaimungal, Penalva 2015, 'Algorithmic and High-Frequency Trading', ch. 3-4"


@dataclass(frozen=True)
class Feature:
    """One column of `features_NF`."""

    name: str
    formula: str
    unit: str
    source: str


FEATURES: tuple[Feature, ...] = (
    Feature("spread", "slog((ask - bid) / tick)", "log ticks", _BOOK),
    Feature("queue_imbalance", "(bid_size - ask_size) / (bid_size + ask_size)", "fraction", _GOULD),
    Feature("bid_size", "ln(bid_size / size)", "log ratio", _BOOK),
    Feature("ask_size", "ln(ask_size / size)", "log ratio", _BOOK),
    Feature("bid_move", "slog(d bid / tick)", "log ticks", _ROLL),
    Feature("ask_move", "slog(d ask / tick)", "log ticks", _ROLL),
    Feature("mid_move", "d mid / sigma before it, within +-10", "deviations", _RISK),
    Feature("volatility", "ln(sigma / tick), mean_128", "log ticks", _RISK),
    Feature("time_gap", "ln(1 + d t)", "log us", _ACD),
    Feature(
        "order_flow_imbalance",
        "slog(e / size), e = [d bid >= 0] bid_size - [d bid <= 0] previous bid_size "
        "- [d ask <= 0] ask_size + [d ask >= 0] previous ask_size",
        "log ratio",
        _CONT,
    ),
    Feature("signed_trade_volume", "slog((bought - sold) / size)", "log ratio", _LEE),
    Feature("trade_volume", "ln(1 + (bought + sold) / size)", "log ratio", _BOOK),
    Feature("trade_count", "ln(1 + trades since the previous row)", "log trades", _ACD),
    Feature("last_trade_offset", "slog((last_trade - mid) / tick)", "log ticks", _LEE),
    Feature(
        "vwap_offset", "slog((o - mean_64 o) / tick), o = mid - session vwap", "log ticks", _VWAP
    ),
    Feature("ema_1min", "x - mean_256 x, x = feature_ema_1min", "as the column", _GOULD),
)

FEATURES_VERSION = hash_bytes(
    b"\0".join((Path(__file__).with_name(name)).read_bytes() for name in ("kernel.py", "labels.py"))
)[:12]
"""Changes when the code that computes features or labels changes: part of every cache key."""
