"""One waiting window per instrument: a newer one takes the place of one that was not sent."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_code.live.fold import Row
from model_code.live.messages import Quote


class Waiting(NamedTuple):
    """A window that waits for the model.

    Attributes:
        quote: that ends the window.
        window_TF: float32 (64, 16), the newest window itself, not a copy.
        decode_ns, features_ns: what the stages took.
        since_ns: when it began to wait, on the clock of the durations.
        row: of the quote, with what the join computed.
        received_ns: when the quote was received, on the caller's clock.
    """

    quote: Quote
    window_TF: NDArray[np.float32]
    decode_ns: int
    features_ns: int
    since_ns: int
    row: Row
    received_ns: int


class Slots:
    """At most one window for each instrument; the one that waits longest is sent first."""

    def __init__(self) -> None:
        self._slots: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def drop(self, symbol: str) -> Waiting | None:
        """Empty an instrument's slot; return what was in it.

        Call it before each new row: the row overwrites the oldest of the waiting window.
        """
        return self._slots.pop(symbol, None)

    def put(self, waiting: Waiting) -> None:
        """Fill an empty slot."""
        self._slots[waiting.quote.symbol] = waiting

    def take(self, most: int) -> list[Waiting]:
        """Remove and return up to `most` windows, the oldest first."""
        symbols = list(self._slots)[:most]
        return [self._slots.pop(symbol) for symbol in symbols]
