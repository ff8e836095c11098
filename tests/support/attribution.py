"""Planted models and profiles for attributions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model_code.attribution.explain import LAGS
from model_code.attribution.profile import Profile, ProfileSlice


class Planted:
    """A predictor with known log-odds; notes the sizes of its batches."""

    def __init__(self, log_odds: Callable[[NDArray[np.float32]], NDArray[np.floating]]) -> None:
        self._log_odds = log_odds
        self.batches: list[int] = []

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        self.batches.append(len(x_BTF))
        odds_B = self._log_odds(x_BTF).astype(np.float32)
        return np.stack([-odds_B / 2, odds_B / 2], axis=1)


def profile(noise: float | None = 0.05, **means: float) -> Profile:
    """A profile of these features, each with its mean |attribution| in the newest row."""
    mean_abs = tuple((value, *[0.0] * (len(LAGS) - 1)) for value in means.values())
    return Profile(
        features=tuple(means),
        lags=tuple(name for name, _, _ in LAGS),
        windows=8,
        background=2,
        slices=(ProfileSlice(dimension="all", name="all", windows=8, mean_abs=mean_abs),),
        noise=noise,
        additivity_error=0.0,
    )
