"""Features of one tick at a time, for serving: the batch kernels run on one row.

Shapes: T steps of a window (64), F features (16), K columns before the set's are chosen.
"""

import math
import struct
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled
from model_code.errors import DataError
from model_code.features import kernel, pairs
from model_code.features.batch import invalid_tick, reset_gap_ns
from model_code.features.definition import (
    ALL,
    DEPTH_AT,
    EXOGENOUS_AT,
    OWN,
    SEEN_AT,
    columns,
    looks_at_depth,
)
from model_code.features.supplements import depth, exogenous
from model_code.market.level2.rows import LEVELS, usable
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH, FeatureSpec

KEPT_NS = pairs.FAR_NS + 10_000_000_000  # of what is looked at; a receiver's clock may lag so far
FIRST_ROWS = 1024
Dumped = tuple[bytes, bytes, int, tuple[float, ...], tuple[bytes, ...]]
Levels = Sequence[float] | npt.NDArray[np.float64]
_PACK = struct.Struct("=q10d").pack_into  # a row of `kernel.TICK`


@compiled
def _keep(all_1K, columns_F, ring_2TF, slot):  # type: ignore[no-untyped-def]
    """Write the set's columns twice, a window apart."""
    steps = ring_2TF.shape[0] // 2
    for k in range(columns_F.shape[0]):
        ring_2TF[slot, k] = all_1K[0, columns_F[k]]
        ring_2TF[slot + steps, k] = all_1K[0, columns_F[k]]


class Recent:
    """The newest rows of what an instrument looks at: a leader's states, depth rows, a series.

    Args:
        dtype: of the rows; they have a `timestamp`.
    """

    def __init__(self, dtype: npt.DTypeLike = kernel.STATE) -> None:
        self.states_N = np.empty(FIRST_ROWS, dtype)
        self.count = 0

    def append(self, state: np.void) -> None:
        """Add a new row; forget rows too old for anyone to need."""
        if self.count == len(self.states_N):
            old = self.states_N["timestamp"] < state["timestamp"] - KEPT_NS
            first = max(0, int(old.sum()) - 1)  # one row before the oldest span is still needed
            kept_M = self.states_N[first:]
            room = FIRST_ROWS + 2 * len(kept_M)
            self.states_N = np.empty(room, kept_M.dtype)
            self.count = len(kept_M)
            self.states_N[: self.count] = kept_M
        self.states_N[self.count] = state
        self.count += 1

    def dump(self) -> bytes:
        """The rows as bytes."""
        return self.states_N[: self.count].tobytes()

    def load(self, dumped: bytes) -> None:
        """Replace the rows by those of `dump`."""
        kept_M = np.frombuffer(dumped, self.states_N.dtype)
        self.states_N = np.empty(FIRST_ROWS + 2 * len(kept_M), kept_M.dtype)
        self.count = len(kept_M)
        self.states_N[: self.count] = kept_M


class FeatureState:
    """One instrument's feature state and its newest window.

    Each row is written twice, `SEQUENCE_LENGTH` apart, so that the newest window is always one
    contiguous slice.

    Args:
        spec: names the feature set.
        others: the instruments it looks at, the first leader first.
        own: where to keep the states that others may see; None if none looks at it.
    """

    def __init__(
        self, spec: FeatureSpec, others: Sequence[Recent] = (), own: Recent | None = None
    ) -> None:
        self._reset_gap_ns = reset_gap_ns(spec)
        self._columns_F = columns(spec.chosen_set)
        self._others = [(recent, pairs.new_pair()) for recent in others]
        self.own = own
        self._book = Recent(depth.STATE)
        self._depth_1 = np.zeros(1, depth.STATE)
        self._looks_at_depth = looks_at_depth(spec.chosen_set)
        self._series = {name: Recent(exogenous.ROW) for name in spec.exogenous}
        self._state_1 = kernel.new_state()
        self._rows_1 = self._state_1["rows"]
        self._after_1 = np.empty(1, kernel.STATE)
        self._tick_1 = np.empty(1, kernel.TICK)
        self._segment_1 = np.empty(1, np.int32)
        self._all_1K = np.zeros((1, len(ALL)), np.float32)
        self._own_1K = self._all_1K[:, : len(OWN)]
        self._seen = [
            self._all_1K[0, SEEN_AT + place * pairs.WIDTH :][: pairs.WIDTH]
            for place in range(len(others))
        ]
        self._tick_bytes = self._tick_1.view(np.uint8).data
        self._ring_2TF = np.zeros((2 * SEQUENCE_LENGTH, FEATURE_COUNT), np.float32)
        self._newest = SEQUENCE_LENGTH - 1

    def update(
        self,
        timestamp_ns: int,
        bid_price: float,
        ask_price: float,
        bid_size: float = math.nan,
        ask_size: float = math.nan,
        last_trade: float = math.nan,
        vwap: float = math.nan,
        feature_ema_1min: float = math.nan,
        buy_volume: float = 0.0,
        sell_volume: float = 0.0,
        trade_count: float = 0.0,
    ) -> npt.NDArray[np.float32]:
        """Take one tick (units as in `market.schema.TICKS`, missing is NaN).

        Returns:
            features_F, a view that the 64th update after this one overwrites.

        Raises:
            DataError: the tick is invalid (crossed, negative, clock going back); the state is
                unchanged, so the caller can count the tick and continue.
        """
        _PACK(
            self._tick_bytes,
            0,
            timestamp_ns,
            bid_price,
            ask_price,
            bid_size,
            ask_size,
            last_trade,
            vwap,
            feature_ema_1min,
            buy_volume,
            sell_volume,
            trade_count,
        )
        taken = kernel.run(
            self._state_1,
            self._tick_1,
            self._reset_gap_ns,
            self._own_1K,
            self._segment_1,
            self._after_1,
        )
        if taken == 0:
            raise invalid_tick(self._tick_1[0], "live tick")
        after = self._after_1[0]
        for (recent, basis_1), channel_P in zip(self._others, self._seen, strict=True):
            pairs.look(after, basis_1, recent.states_N, recent.count, self._reset_gap_ns, channel_P)
        if self._looks_at_depth:
            depth.look(
                after,
                self._book.states_N,
                self._book.count,
                self._reset_gap_ns,
                self._all_1K[0, DEPTH_AT : DEPTH_AT + depth.WIDTH],
            )
        for place, rows in enumerate(self._series.values()):
            first = EXOGENOUS_AT + place * exogenous.WIDTH
            seen_2 = self._all_1K[0, first : first + exogenous.WIDTH]
            exogenous.look(timestamp_ns, rows.states_N, rows.count, seen_2)
        if self.own is not None:
            self.own.append(after)
        slot = (self._newest + 1) % SEQUENCE_LENGTH
        _keep(self._all_1K, self._columns_F, self._ring_2TF, slot)
        self._newest = slot
        features_F: npt.NDArray[np.float32] = self._ring_2TF[slot]
        return features_F

    def update_depth(
        self,
        timestamp_ns: int,
        bid_price_L: Levels,
        bid_size_L: Levels,
        ask_price_L: Levels,
        ask_size_L: Levels,
    ) -> None:
        """Take one depth row, ten levels a side with the best first; NaN is a missing level.

        Raises:
            DataError: it is no book (crossed, unsorted, a side empty) or the clock goes back; the
                state is unchanged.
        """
        levels = [
            np.asarray(part_L, np.float64)
            for part_L in (bid_price_L, bid_size_L, ask_price_L, ask_size_L)
        ]
        ten = all(part_L.shape == (LEVELS,) for part_L in levels)
        if not ten or not usable(*(part_L[None] for part_L in levels))[0]:
            raise DataError(
                "the depth row is no book: it needs ten levels a side, sorted from the best on, "
                f"not crossed, with positive sizes; found {[part_L.tolist() for part_L in levels]}",
                where="live depth row",
                remedy="leave it out and count it, or ask for a new snapshot",
            )
        bid_L, bid_size, ask_L, ask_size = levels
        depth.summarise(timestamp_ns, bid_L, bid_size, ask_L, ask_size, self._depth_1[0])
        _append(self._book, self._depth_1[0], "live depth row")

    def update_exogenous(self, name: str, timestamp_ns: int, value: float) -> None:
        """Take one row of an exogenous series, named as in the specification.

        Raises:
            DataError: the set has no such series, the value is not finite, or the clock goes back;
                the state is unchanged.
        """
        where = f"live row of {name}"
        if name not in self._series or not math.isfinite(value):
            raise DataError(
                f"the value {value} is not finite"
                if name in self._series
                else f"no series {name}: the set has {', '.join(self._series) or 'none'}",
                where=where,
                remedy="send the series of features.exogenous, finite values only",
            )
        row_1 = np.array([(timestamp_ns, value)], exogenous.ROW)
        _append(self._series[name], row_1[0], where)

    def reset(self) -> None:
        """Begin a new segment with the next tick, as after a gap: something was missed."""
        self._state_1[:] = kernel.new_state()

    def dump(self) -> Dumped:
        """Everything that the next update depends on, but the leaders' states (`Recent`)."""
        basis = tuple(float(basis_1[0]) for _, basis_1 in self._others)
        beside = tuple(recent.dump() for recent in (self._book, *self._series.values()))
        return self._state_1.tobytes(), self._ring_2TF.tobytes(), self._newest, basis, beside

    def load(self, dumped: Dumped) -> None:
        """Continue from what `dump` returned for an instrument of the same set and leaders.

        Raises:
            ValueError: it is of another shape.
        """
        state, ring, self._newest, basis, beside = dumped
        self._state_1[:] = np.frombuffer(state, kernel.STATE)
        self._ring_2TF[:] = np.frombuffer(ring, np.float32).reshape(self._ring_2TF.shape)
        for (_, basis_1), value in zip(self._others, basis, strict=True):
            basis_1[0] = value
        for recent, rows in zip((self._book, *self._series.values()), beside, strict=True):
            recent.load(rows)

    @property
    def segment(self) -> int:
        """Number of the current segment, counted from 0; -1 before the first tick."""
        return int(self._state_1[0]["segment"])

    @property
    def begins(self) -> bool:
        """Whether the newest row is the first of its segment."""
        return bool(self._rows_1[0] == 1)

    @property
    def ready(self) -> bool:
        """Whether the current segment has a full window."""
        return bool(self._rows_1[0] >= SEQUENCE_LENGTH)

    def window_TF(self) -> npt.NDArray[np.float32]:  # noqa: N802
        """The newest window, oldest row first: a view that the next update overwrites.

        Raises:
            DataError: not `ready`: the window would contain rows of another segment, or none.
        """
        if not self.ready:
            raise DataError(
                f"the window is not full: {self._rows_1[0]} of {SEQUENCE_LENGTH} rows",
                remedy="call window_TF only when ready is true",
            )
        first = self._newest + 1
        return self._ring_2TF[first : first + SEQUENCE_LENGTH]


def _append(recent: Recent, row: np.void, where: str) -> None:
    if recent.count and row["timestamp"] < recent.states_N[recent.count - 1]["timestamp"]:
        raise DataError("the clock goes back", where=where, remedy="leave the row out, count it")
    recent.append(row)


def group(
    spec: FeatureSpec, symbols: Sequence[str], leaders: Mapping[str, Sequence[str]]
) -> dict[str, FeatureState]:
    """The states of instruments that look at each other; feed all their ticks in arrival order.

    Args:
        spec: names the feature set.
        symbols: instruments to compute features of; their leaders must be among them.
        leaders: whom each instrument looks at; a missing instrument looks at nobody.

    Raises:
        DataError: a leader is not among the symbols.
    """
    missing = {name for symbol in symbols for name in leaders.get(symbol, ())} - set(symbols)
    if missing:
        raise DataError(
            f"no ticks of {', '.join(sorted(missing))}, which other instruments look at",
            remedy="subscribe to them too, or leave them out of features.leaders",
        )
    led = {name for symbol in symbols for name in leaders.get(symbol, ())}
    recent = {name: Recent() for name in led}
    return {
        symbol: FeatureState(
            spec, [recent[name] for name in leaders.get(symbol, ())], recent.get(symbol)
        )
        for symbol in symbols
    }
