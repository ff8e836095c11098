"""The instruments that look at each other, and a snapshot from which they continue bit for bit.

A snapshot is bytes: a header that says what it is of, the state, and a sha256 of both. It is not a
pickle; reading one runs no code. Writing the file in one step is the caller's.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from model_code.artifacts import hash_bytes
from model_code.errors import ConfigError, IntegrityError
from model_code.features import incremental
from model_code.features.definition import FEATURES_VERSION, looks_at_depth
from model_code.features.served import SeenFeatures
from model_code.live import fold, messages, order
from model_code.live.fold import Join, Row, Session
from model_code.live.messages import Tick, Trade
from model_code.live.order import Order
from model_code.live.reasons import Reason
from model_code.market import join, trade_check
from model_code.market.profiles import Limits, limits
from model_code.market.row_check import RowCheck
from model_code.settings import FeatureSpec, ValidationSpec

MAGIC = b"tickline-live-1\n"
HASH_BYTES = 32
_SOURCES = [
    str(module.__file__) for module in (fold, order, messages, incremental, join, trade_check)
] + [__file__]
CODE_VERSION = hash_bytes(b"\0".join(Path(file).read_bytes() for file in _SOURCES))[:12]
"""Changes with the code that a snapshot depends on, besides the features' own version."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is of; a path of anything else refuses it."""

    code: str = CODE_VERSION
    features: str = FEATURES_VERSION
    feature_set: str
    leaders: dict[str, tuple[str, ...]]
    symbols: tuple[str, ...]
    reset_gap_s: float
    long_double: int = np.dtype(np.longdouble).itemsize


class _Instrument(msgspec.Struct):
    order: Order
    session: Session
    features: incremental.Dumped
    recent: bytes | None


class _Body(msgspec.Struct):
    identity: Identity
    instruments: dict[str, _Instrument]


class Instrument:
    """One instrument's order, join, validity and features."""

    def __init__(
        self, features: incremental.FeatureState, spec: Limits, trade_band_bps: float
    ) -> None:
        self.order, self.join, self.check = Order(), Join(trade_band_bps), RowCheck(spec)
        self.features = features

    def row(self, tick: Tick) -> Row | Reason | None:
        """The usable row of a quote, why there is none, or None for a trade that was taken."""
        if isinstance(tick, Trade):
            return self.join.trade(tick)
        row = self.join.quote(tick)
        if isinstance(row, Reason):
            return row
        broken = self.check.reason(row, self.join.tightest_bps)
        return row if broken is None else Reason(broken)


def require_messages(seen: SeenFeatures) -> None:
    """Refuse a set that looks at more than quotes and trades.

    Raises:
        ConfigError: it does.
    """
    if seen.exogenous or looks_at_depth(seen.feature_set):
        raise ConfigError(
            f"no message carries what the set {seen.feature_set} looks at",
            remedy="use a version of the set solo, paired or venues",
        )


class Group:
    """The live state of instruments that look at each other.

    Args:
        seen: feature set and leaders of the model version.
        symbols: instruments that decide; leaders among them.
        reset_gap_s: after a longer silence a window begins anew.
        spec: thresholds of validation.
        trade_band_bps: of the live check of trades; None: validation's.

    Raises:
        DataError: a leader is not among the symbols.
        ConfigError: an instrument is named twice, or none is; or the set looks at more than quotes
            and trades.
    """

    def __init__(
        self,
        seen: SeenFeatures,
        symbols: Sequence[str],
        reset_gap_s: float,
        spec: ValidationSpec | Limits | None = None,
        trade_band_bps: float | None = None,
    ) -> None:
        if not symbols or len(set(symbols)) != len(symbols):
            raise ConfigError(
                f"instruments must be named once each, found {', '.join(symbols) or 'none'}",
                remedy="name each instrument once",
            )
        bounds = spec if isinstance(spec, Limits) else limits(spec or ValidationSpec())
        band = bounds.trade_band_bps if trade_band_bps is None else trade_band_bps
        require_messages(seen)
        features = FeatureSpec(feature_set=seen.feature_set, reset_gap_s=reset_gap_s)
        leaders = {name: seen.leaders[name] for name in symbols if name in seen.leaders}
        self.instruments = {
            name: Instrument(state, bounds, band)
            for name, state in incremental.group(features, symbols, leaders).items()
        }
        self.identity = Identity(
            feature_set=seen.feature_set,
            leaders=leaders,
            symbols=tuple(symbols),
            reset_gap_s=reset_gap_s,
        )

    def snapshot(self) -> bytes:
        """Everything that later decisions depend on.

        Take it when no window waits, and keep the stream's positions beside it: what is received
        again is then a duplicate, and what was not decided is not lost.
        """
        instruments = {
            name: _Instrument(
                order=one.order,
                session=one.join.dump(),
                features=one.features.dump(),
                recent=one.features.own.dump() if one.features.own is not None else None,
            )
            for name, one in self.instruments.items()
        }
        body = msgspec.msgpack.encode(_Body(self.identity, instruments))
        return MAGIC + bytes.fromhex(hash_bytes(MAGIC + body)) + body

    def restore(self, snapshot: bytes) -> None:
        """Continue from a snapshot.

        Raises:
            IntegrityError: truncated, changed, or of other code, features or instruments. The
                state is unchanged.
        """
        body = _verified(snapshot)
        differing = [
            f"{name} {_short(getattr(body.identity, name))}, here {_short(value)}"
            for name in Identity.__struct_fields__
            for value in (getattr(self.identity, name),)
            if getattr(body.identity, name) != value
        ]
        if differing:
            raise _refusal(f"the snapshot is of another path: {'; '.join(differing)}")
        for name, found in body.instruments.items():
            one = self.instruments[name]
            one.order = found.order
            one.join.load(found.session)
            one.features.load(found.features)
            if one.features.own is not None and found.recent is not None:
                one.features.own.load(found.recent)


def _verified(snapshot: bytes) -> _Body:
    start = len(MAGIC) + HASH_BYTES
    if not snapshot.startswith(MAGIC):
        raise _refusal("not a snapshot of this format")
    digest, body = snapshot[len(MAGIC) : start], snapshot[start:]
    if digest.hex() != hash_bytes(MAGIC + body):
        raise _refusal("the snapshot is truncated or changed: its sha256 differs")
    try:
        return msgspec.msgpack.decode(body, type=_Body)
    except msgspec.DecodeError as error:
        raise _refusal(f"the snapshot is of another layout: {error}") from error


def _refusal(what: str) -> IntegrityError:
    return IntegrityError(
        what, remedy="delete it: the windows fill again from 64 ticks of each instrument"
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
