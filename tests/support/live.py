"""Messages and models of the live path for tests."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.features.served import SOLO, SeenFeatures
from model_code.live.messages import Quote, Trade
from model_code.live.path import LivePath
from model_code.live.replay import Model
from model_code.live.state import Group
from model_code.settings import FeatureSpec
from tests.support.market import DATES, SYMBOLS, epoch_ns

NOON = epoch_ns(DATES[0])
MS = 1_000_000


def quote(sequence: int, at_ms: float = 0.0, symbol: str = SYMBOLS[0], **changes: Any) -> Quote:
    """A sound quote; `at_ms` after noon, moving a little with its number."""
    values: dict[str, Any] = {
        "bid_price": 100.0 + 0.01 * (sequence % 3),
        "ask_price": 100.05 + 0.01 * (sequence % 2),
        "bid_size": 1.0 + sequence % 5,
        "ask_size": 2.0 + sequence % 7,
    }
    local_ns = NOON + round(at_ms * MS)
    return Quote(symbol=symbol, sequence=sequence, local_ns=local_ns, **(values | changes))


def trade(sequence: int, at_ms: float = 0.0, symbol: str = SYMBOLS[0], **changes: Any) -> Trade:
    """A sound trade; `at_ms` after noon."""
    values: dict[str, Any] = {"price": 100.02, "size": 1.0, "buyer_is_maker": False}
    local_ns = NOON + round(at_ms * MS)
    return Trade(symbol=symbol, sequence=sequence, local_ns=local_ns, **(values | changes))


def path(
    symbols: tuple[str, ...] = SYMBOLS[:1], seen: SeenFeatures = SOLO, **options: Any
) -> LivePath:
    """A path of these instruments."""
    options = {"threshold": 0.5, "model_version": 7} | options
    return LivePath(Group(seen, symbols, 10.0), **options)


def warm(live: LivePath, first: int = 1, symbol: str = SYMBOLS[0], count: int = 64) -> int:
    """Take `count` quotes, 10 ms apart; return the next sequence number."""
    for sequence in range(first, first + count):
        one = quote(sequence, 10.0 * sequence, symbol)
        live.take(one, one.local_ns)
    return first + count


class StepPredictor:
    """Logits from the last step of one column: an engine that needs no file."""

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        newest_B = x_BTF[:, -1, 6]
        return np.stack([np.zeros_like(newest_B), newest_B], 1)


def model(seen: SeenFeatures = SOLO, **spec: Any) -> Model:
    """A version that sees these features."""
    features = FeatureSpec(feature_set=seen.feature_set, **spec)
    return Model(StepPredictor(), seen, features, threshold=0.5, version=7)
