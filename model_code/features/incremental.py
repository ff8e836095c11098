"""Features of one tick at a time, for serving: the batch kernel run on one row.

Shapes: T steps of a window (64), F features (16).
"""

import math

import numpy as np
import numpy.typing as npt

from model_code.errors import DataError
from model_code.features import kernel
from model_code.features.batch import invalid_tick, reset_gap_ns
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH, FeatureSpec


class FeatureState:
    """One instrument's feature state and its newest window.

    Each row is written twice, `SEQUENCE_LENGTH` apart, so that the newest window is always one
    contiguous slice.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self._reset_gap_ns = reset_gap_ns(spec)
        self._state_1 = kernel.new_state()
        self._tick_1 = np.empty(1, kernel.TICK)
        self._segment_1 = np.empty(1, np.int32)
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
        self._tick_1[0] = (
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
        slot = (self._newest + 1) % SEQUENCE_LENGTH
        row_1F = self._ring_2TF[slot : slot + 1]
        taken = kernel.run(self._state_1, self._tick_1, self._reset_gap_ns, row_1F, self._segment_1)
        if taken == 0:
            raise invalid_tick(self._tick_1[0], "live tick")
        self._ring_2TF[slot + SEQUENCE_LENGTH] = row_1F[0]
        self._newest = slot
        features_F: npt.NDArray[np.float32] = row_1F[0]
        return features_F

    @property
    def segment(self) -> int:
        """Number of the current segment, counted from 0; -1 before the first tick."""
        return int(self._state_1[0]["segment"])

    @property
    def ready(self) -> bool:
        """Whether the current segment has a full window."""
        return bool(self._state_1[0]["rows"] >= SEQUENCE_LENGTH)

    def window_TF(self) -> npt.NDArray[np.float32]:  # noqa: N802
        """The newest window, oldest row first: a view that the next update overwrites.

        Raises:
            DataError: not `ready`: the window would contain rows of another segment, or none.
        """
        if not self.ready:
            raise DataError(
                f"the window is not full: {self._state_1[0]['rows']} of {SEQUENCE_LENGTH} rows",
                remedy="call window_TF only when ready is true",
            )
        first = self._newest + 1
        return self._ring_2TF[first : first + SEQUENCE_LENGTH]
