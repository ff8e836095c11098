"""A planted market of rare opportunities, and what the stage `split` takes of it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_code.benchmark.slices import WindowContext
from model_code.features.strata import strided, thin

COUNT, LIMIT, RATE = 250_000, 8192, 0.004


class Market(NamedTuple):
    """Windows in time order with a model's answers; weights are None if all weigh the same."""

    label_N: NDArray[np.int8]
    probability_N: NDArray[np.float64]
    boosting_N: NDArray[np.float64]
    place_N: NDArray[np.int64]
    weight_N: NDArray[np.float64] | None

    @property
    def context(self) -> WindowContext:
        """Windows a tenth of a second apart in the market, two instruments in turn."""
        return WindowContext(
            timestamp_ns_N=self.place_N * 10**8,
            symbol_N=np.array(["A", "B"])[self.place_N % 2],
            spread_N=1.0 + self.place_N % 7,
            volatility_N=self.probability_N,
            weight_N=self.weight_N,
        )

    def at(self, place_N: NDArray[np.int64], weight_N: NDArray[np.float64] | None) -> "Market":
        """The windows at these places."""
        return Market(
            self.label_N[place_N],
            self.probability_N[place_N],
            self.boosting_N[place_N],
            self.place_N[place_N],
            weight_N,
        )

    def by_class(self) -> "Market":
        """What is taken of it by class."""
        return self.at(*thin(self.place_N, self.label_N, LIMIT))

    def evenly(self) -> "Market":
        """What an even stride takes of it."""
        return self.at(strided(self.place_N, LIMIT), None)


def market(seed: int = 0) -> Market:
    """About 0.4% opportunities, ranked well by the model, a little worse by boosting."""
    random = np.random.default_rng(seed)
    signal_N = np.log(RATE) - 1.95 + 2.0 * random.normal(size=COUNT)
    label_N = (random.uniform(size=COUNT) < 1 / (1 + np.exp(-signal_N))).astype(np.int8)
    model_N, boosting_N = (
        1 / (1 + np.exp(-(signal_N + noise * random.normal(size=COUNT)))) for noise in (0.3, 0.6)
    )
    return Market(label_N, model_N, boosting_N, np.arange(COUNT), None)
