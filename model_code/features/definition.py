"""Definition of the features and of the sets of 16 that a network sees, in column order.

`kernel.step` computes an instrument's own, `pairs.look` what it sees of another, `depth.look` what
it sees of its Level-2 book, `exogenous.look` what it sees of a series; this module documents them.
Notation: `slog(x)` is sign(x) * ln(1 + |x|), `tick` the tightest spread so far, `size` the running
mean of (bid_size + ask_size) / 2 and `sigma` the running deviation of mid moves, all within the
segment; `mean_n` is an exponential mean over about n rows and `d` the change since the previous
row.
A feature with missing inputs is 0. On a segment's first row changes, flow and trades are 0.
A name with `there` belongs to the other instrument, at its newest row that arrived strictly
earlier; the feature is 0 where there is none within the reset gap. `bids_k` and `asks_k` are the
sizes of the best k levels of the newest depth row that arrived strictly earlier; those features are
0 where there is none within the reset gap. `x` is the newest earlier value of an exogenous series.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_code.artifacts import hash_bytes
from model_code.errors import ConfigError
from model_code.features import pairs
from model_code.features.supplements import depth
from model_code.settings import FEATURE_COUNT, MOST_SERIES, FeatureSetName

_CONT = "Cont, Kukanov, Stoikov 2014, 'The Price Impact of Order Book Events'"
_GOULD = "Gould, Bonart 2016, 'Queue Imbalance as a One-Tick-Ahead Price Predictor'"
_ROLL = "Hasbrouck 2007, 'Empirical Market Microstructure', ch. 3"
_RISK = "RiskMetrics 1996 technical document, exponentially weighted volatility"
_ACD = "Engle, Russell 1998, 'Autoregressive Conditional Duration'"
_LEE = "Lee, Ready 1991, 'Inferring Trade Direction from Intraday Data'"
_VWAP = "Berkowitz, Logue, Noser 1988, 'The Total Cost of Transactions on the NYSE'"
_HUTH = "Huth, Abergel 2014, 'High Frequency Lead/Lag Relationships'"
_ENGLE = "Engle, Granger 1987, 'Co-integration and Error Correction'"
_HASB = "Hasbrouck 1995, 'One Security, Many Markets'"
_NAES = "Naes, Skjeltorp 2006, 'Order Book Characteristics and the Volume-Volatility Relation'"
_CAO = "Cao, Hansch, Wang 2009, 'The Information Content of an Open Limit-Order Book'"
_MACRO = "Andersen, Bollerslev, Diebold, Vega 2003, 'Micro Effects of Macro Announcements'"
_BOOK = "Cartea, Jaimungal, Penalva 2015, 'Algorithmic and High-Frequency Trading', ch. 3-4"


UNKNOWN = "?"  # mirror image of a column whose meaning is not known here


@dataclass(frozen=True)
class Feature:
    """One column of `features_NF`.

    Attributes:
        name: of the column.
        formula: in the module's notation.
        unit: of the column.
        source: where it is from.
        mirror: what the column becomes if the market's sides are swapped: "" itself, "-" itself
            negated, a name that column, "-" and a name that column negated (`mirror`); `UNKNOWN`.
    """

    name: str
    formula: str
    unit: str
    source: str
    mirror: str = ""


OWN: tuple[Feature, ...] = (
    Feature("spread", "slog((ask - bid) / tick)", "log ticks", _BOOK),
    Feature(
        "queue_imbalance", "(bid_size - ask_size) / (bid_size + ask_size)", "fraction", _GOULD, "-"
    ),
    Feature("bid_size", "ln(bid_size / size)", "log ratio", _BOOK, "ask_size"),
    Feature("ask_size", "ln(ask_size / size)", "log ratio", _BOOK, "bid_size"),
    Feature("bid_move", "slog(d bid / tick)", "log ticks", _ROLL, "-ask_move"),
    Feature("ask_move", "slog(d ask / tick)", "log ticks", _ROLL, "-bid_move"),
    Feature("mid_move", "d mid / sigma before it, within +-10", "deviations", _RISK, "-"),
    Feature("volatility", "ln(sigma / tick), mean_128", "log ticks", _RISK),
    Feature("time_gap", "ln(1 + d t)", "log us", _ACD),
    Feature(
        "order_flow_imbalance",
        "slog(e / size), e = [d bid >= 0] bid_size - [d bid <= 0] previous bid_size "
        "- [d ask <= 0] ask_size + [d ask >= 0] previous ask_size",
        "log ratio",
        _CONT,
        "-",
    ),
    Feature("signed_trade_volume", "slog((bought - sold) / size)", "log ratio", _LEE, "-"),
    Feature("trade_volume", "ln(1 + (bought + sold) / size)", "log ratio", _BOOK),
    Feature("trade_count", "ln(1 + trades since the previous row)", "log trades", _ACD),
    Feature("last_trade_offset", "slog((last_trade - mid) / tick)", "log ticks", _LEE, "-"),
    Feature(
        "vwap_offset",
        "slog((o - mean_64 o) / tick), o = mid - session vwap",
        "log ticks",
        _VWAP,
        "-",
    ),
    Feature("ema_1min", "x - mean_256 x, x = feature_ema_1min", "as the column", _GOULD, "-"),
)


def _seen(place: str) -> tuple[Feature, ...]:
    """What is seen of another instrument, in the order of `pairs.CHANNELS`."""
    return (
        Feature(f"{place}_imbalance", "queue_imbalance there", "fraction", _GOULD, "-"),
        Feature(
            f"{place}_basis",
            "slog(b - mean_512 b), b = ln(mid there / mid) * mid / tick",
            "log ticks",
            _ENGLE,
            "-",
        ),
        Feature(f"{place}_age", "ln(1 + time since its row there)", "log us", _ACD),
        *(
            Feature(f"{place}_move_{ms}ms", f"slog(mid move there over {ms} ms / tick there)",
                    "log ticks", _HUTH, "-")
            for ms in (20, 100, 500)
        ),
        Feature(f"{place}_rows_20ms", "ln(1 + rows there over 20 ms)", "log rows", _ACD),
        Feature(f"{place}_rows_100ms", "ln(1 + rows there over 100 ms)", "log rows", _ACD),
        Feature(f"{place}_spread", "slog((ask there - bid there) / tick)", "log ticks", _BOOK),
        Feature(f"{place}_gap_buy_here", "slog((bid there - ask) / tick)", "log ticks", _HASB,
                f"{place}_gap_buy_there"),
        Feature(f"{place}_gap_buy_there", "slog((bid - ask there) / tick)", "log ticks", _HASB,
                f"{place}_gap_buy_here"),
    )  # fmt: skip


_FIRST, _SECOND = _seen("leader"), _seen("second")
_DEPTH: tuple[Feature, ...] = (
    *(
        Feature(f"depth_imbalance_{k}", f"(bids_{k} - asks_{k}) / (bids_{k} + asks_{k})",
                "fraction", _CAO, "-")
        for k in (2, 5, 10)
    ),
    Feature("depth_width", "slog((10th ask - 10th bid) / tick)", "log ticks", _CAO),
    Feature(
        "depth_slope",
        "ln(b / a), b = bids_10 / (best - 10th bid + tick), a = asks_10 / (10th - best ask + tick)",
        "log ratio",
        _NAES,
        "-",
    ),
    Feature(
        "depth_weighted_imbalance",
        "as the imbalance of ten levels, level k with weight 1 / k",
        "fraction",
        _CAO,
        "-",
    ),
    Feature(
        "depth_weighted_change_500ms",
        "depth_weighted_imbalance less that of 500 ms before; 0 where there was none",
        "fraction",
        _CONT,
        "-",
    ),
    Feature("depth_age", "ln(1 + time since the depth row)", "log us", _ACD),
)  # fmt: skip
_EXOGENOUS: tuple[Feature, ...] = tuple(
    feature
    for place in range(1, MOST_SERIES + 1)
    for feature in (
        Feature(f"exogenous_{place}", "slog(x); 0 where there is none", "log of the series' unit",
                _MACRO, UNKNOWN),
        Feature(f"exogenous_{place}_age", "ln(1 + time since x); 32 where there is none", "log us",
                _ACD),
    )
)  # fmt: skip
ALL: tuple[Feature, ...] = OWN + _FIRST + _SECOND + _DEPTH + _EXOGENOUS
"""Every feature, in the order in which the kernels write them."""
SEEN_AT = len(OWN)  # where the parts of `ALL` begin
DEPTH_AT = SEEN_AT + 2 * pairs.WIDTH
EXOGENOUS_AT = DEPTH_AT + depth.WIDTH


def _named(*names: str) -> tuple[Feature, ...]:
    known = {feature.name: feature for feature in ALL}
    return tuple(known[name] for name in names)


_EIGHT = (
    "queue_imbalance",
    "bid_size",
    "ask_size",
    "mid_move",
    "volatility",
    "time_gap",
    "order_flow_imbalance",
    "trade_volume",
)
FEATURE_SETS: dict[FeatureSetName, tuple[Feature, ...]] = {
    "solo": OWN,
    "paired": _named(
        *_EIGHT,
        "leader_imbalance",
        "leader_basis",
        "leader_age",
        "leader_move_100ms",
        "leader_rows_100ms",
        "second_imbalance",
        "second_basis",
        "second_move_100ms",
    ),
    "venues": _named(
        "spread",
        "bid_move",
        "ask_move",
        "mid_move",
        "volatility",
        "time_gap",
        "leader_gap_buy_here",
        "leader_gap_buy_there",
        "leader_spread",
        "leader_basis",
        "leader_age",
        "leader_move_20ms",
        "leader_move_100ms",
        "leader_move_500ms",
        "leader_rows_20ms",
        "leader_rows_100ms",
    ),
    "depth": _named(*_EIGHT, *(feature.name for feature in _DEPTH)),
    "exogenous": _named(*_EIGHT, *(feature.name for feature in _EXOGENOUS)),
}
"""The 16 features of each set, in column order."""


def names(feature_set: FeatureSetName) -> list[str]:
    """The names of a set's 16 features, in column order."""
    return [feature.name for feature in FEATURE_SETS[feature_set]]


def columns(feature_set: FeatureSetName) -> npt.NDArray[np.int64]:
    """Where the set's 16 features stand among `ALL`."""
    place = {feature.name: i for i, feature in enumerate(ALL)}
    found = np.array([place[name] for name in names(feature_set)], np.int64)
    assert len(found) == FEATURE_COUNT  # noqa: S101
    return found


def look_at(feature_set: FeatureSetName) -> int:
    """How many other instruments the set looks at: 0, 1 or 2."""
    chosen = set(names(feature_set))
    return sum(not chosen.isdisjoint(f.name for f in seen) for seen in (_FIRST, _SECOND))


def looks_at_depth(feature_set: FeatureSetName) -> bool:
    """Whether the set needs depth rows."""
    return not set(names(feature_set)).isdisjoint(feature.name for feature in _DEPTH)


def has_mirror(feature_set: FeatureSetName) -> bool:
    """Whether the mirror image of every column is known."""
    return all(feature.mirror != UNKNOWN for feature in FEATURE_SETS[feature_set])


def mirror(feature_set: FeatureSetName) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Columns and signs (F,) of the same market with its sides swapped: `x[..., column] * sign`.

    Every price p becomes C - p, so bids and asks change places, with their sizes; what was bought
    was sold. Exact, except for a basis: `ln(mid there / mid)` is the logarithm of a ratio, which
    mirrored prices have only to first order in the distance of the two.

    Raises:
        ConfigError: the set has a column whose mirror image is not known.
    """
    if not has_mirror(feature_set):
        raise ConfigError(
            f"the feature set {feature_set} has no mirror image: what its series mean is not known",
            remedy="set training.mirror=false, or choose another features.feature_set",
        )
    chosen = names(feature_set)
    found = [
        (chosen.index(other.lstrip("-") or feature.name), -1.0 if other.startswith("-") else 1.0)
        for feature in FEATURE_SETS[feature_set]
        for other in (feature.mirror,)
    ]
    column_F, sign_F = zip(*found, strict=True)
    return np.array(column_F, np.int64), np.array(sign_F, np.float32)


_SOURCES = (
    "kernel.py",
    "pairs.py",
    "supplements/depth.py",
    "supplements/exogenous.py",
    "labels.py",
    "definition.py",
)
FEATURES_VERSION = hash_bytes(
    b"\0".join((Path(__file__).parent / name).read_bytes() for name in _SOURCES)
)[:12]
"""Changes when the code that computes features or labels changes: part of every cache key."""
