"""Shapley values of a model's log-odds, by feature and lag, through the ordinary predictor.

A player is one feature in one group of a window's rows. A player outside a coalition takes the
values of background windows, and the model's log-odds are averaged over those. Each window gets
one random order of the players, forward and backward, which is exact for effects of up to two
players (Lundberg, Lee 2017, 'A Unified Approach to Interpreting Model Predictions'; Mitchell,
Cooper, Frank, Holmes 2022, 'Sampling Permutations for Shapley Value Estimation').

Shapes: B windows, T = 64 steps, F = 16 features, L = 4 lag groups, P = F x L players, K background
windows, M masked windows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_code.engines.protocol import Predictor
from model_code.errors import EngineError
from model_code.settings import FEATURE_COUNT, MAX_BATCH_SIZE, SEQUENCE_LENGTH

LAGS = (("newest", 0, 1), ("1-3", 1, 4), ("4-15", 4, 16), ("16-63", 16, SEQUENCE_LENGTH))
"""Lag groups: name, first row before the newest, first row after the group."""
PLAYERS = FEATURE_COUNT * len(LAGS)
EVALUATIONS = 2 * PLAYERS + 1  # of coalitions: one order, forward and backward
TOLERANCE = 1e-3  # log-odds: sum of the attributions and the base against the model's output

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Attributions:
    """What each player adds to the log-odds of each window.

    Attributes:
        value_BFL: log-odds; the sum over F and L, plus the base, is the output.
        base_B: mean log-odds of the window's background.
        output_B: log-odds of the window.
    """

    value_BFL: Floats
    base_B: Floats
    output_B: Floats

    @property
    def additivity_error(self) -> float:
        """Largest |sum of the attributions + base - output|, log-odds."""
        return float(np.abs(self.value_BFL.sum(axis=(1, 2)) + self.base_B - self.output_B).max())


class _Coalitions:
    """shap's masker: a window in which players outside a coalition have the background's values."""

    immutable_outputs = True  # each call returns a new array, so shap need not copy it

    def __init__(self, x_TF: NDArray[np.float32], background_KTF: NDArray[np.float32]) -> None:
        self.shape = (len(background_KTF), PLAYERS)
        self._x_TF, self._background_KTF = x_TF, background_KTF
        group_T = np.empty(SEQUENCE_LENGTH, np.int64)
        for number, (_, first, stop) in enumerate(LAGS):
            group_T[SEQUENCE_LENGTH - stop : SEQUENCE_LENGTH - first] = number
        self._group_T = group_T

    def __call__(self, mask_P: NDArray[np.bool_], _: object) -> tuple[NDArray[np.float32]]:
        """The window with the background in place of players that are False, (K, T, F)."""
        inside_TF = mask_P.reshape(FEATURE_COUNT, len(LAGS))[:, self._group_T].T
        return (np.where(inside_TF, self._x_TF, self._background_KTF),)


def attribute(
    predictor: Predictor,
    x_BTF: NDArray[np.float32],
    background_BKTF: NDArray[np.float32],
    *,
    seed: int = 0,
) -> Attributions:
    """Attribute the log-odds of each window to features and lags.

    Args:
        predictor: of any kind; it is asked (2P + 1) K times for each window, at most
            `MAX_BATCH_SIZE` windows at once.
        x_BTF: raw windows.
        background_BKTF: raw background windows of each.
        seed: of the players' orders; the same gives the same attributions.

    Raises:
        EngineError: an output is not finite, or the attributions do not add up to the outputs.
    """
    from shap import PermutationExplainer  # here: importing it takes seconds

    value_BP = np.zeros((len(x_BTF), PLAYERS))
    base_B = np.zeros(len(x_BTF))
    everyone_1P = np.ones((1, PLAYERS), np.float32)
    state = np.random.get_state()  # noqa: NPY002  shap seeds the global generator
    try:
        for b, (x_TF, background_KTF) in enumerate(zip(x_BTF, background_BKTF, strict=True)):
            explainer = PermutationExplainer(
                lambda x_MTF: log_odds(predictor, x_MTF),
                _Coalitions(x_TF, background_KTF),
                seed=seed + b,
            )
            found = explainer(
                everyone_1P, max_evals=EVALUATIONS, batch_size=EVALUATIONS, silent=True
            )
            value_BP[b], base_B[b] = found.values[0], found.base_values[0]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    found = Attributions(
        value_BP.reshape(-1, FEATURE_COUNT, len(LAGS)), base_B, log_odds(predictor, x_BTF)
    )
    if found.additivity_error > TOLERANCE:
        raise EngineError(
            f"attributions and base differ from the model's log-odds by "
            f"{found.additivity_error:.2g}, more than {TOLERANCE:g}",
            remedy="check that the engine gives a window the same answer alone and in a batch",
        )
    return found


def log_odds(predictor: Predictor, x_MTF: NDArray[np.float32]) -> Floats:
    """Log-odds of an opportunity, float64 (M,), in batches that every engine takes.

    Raises:
        EngineError: one is not finite.
    """
    parts = [
        predictor.predict(np.ascontiguousarray(x_MTF[start : start + MAX_BATCH_SIZE]))
        for start in range(0, len(x_MTF), MAX_BATCH_SIZE)
    ]
    logits_MC = np.concatenate(parts).astype(np.float64)
    odds_M: Floats = logits_MC[:, 1] - logits_MC[:, 0]
    if bad := int((~np.isfinite(odds_M)).sum()):
        raise EngineError(
            f"the log-odds of {bad} of {len(odds_M)} masked windows are not finite",
            remedy="check the weights and the features for NaN",
        )
    return odds_M
