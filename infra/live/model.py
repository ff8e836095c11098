"""What answers for the windows of the service.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model_code.engines.protocol import Predictor
from model_code.errors import ServingError
from model_code.live.path import Flag
from model_code.models.probability import probability


class Answered(NamedTuple):
    """Probabilities and who computed them.

    Attributes:
        probability_B: of an opportunity, float64.
        flags: of the decisions.
        version: that answered; None: the path's.
        threshold: of that version; None: the path's.
    """

    probability_B: NDArray[np.float64]
    flags: tuple[Flag, ...] = ()
    version: int | None = None
    threshold: float | None = None


class FeaturesChangedError(ServingError):
    """The version sees other features than those that the service computes."""


class Model(Protocol):
    """A model that may answer from elsewhere."""

    async def ask(self, x_BTF: NDArray[np.float32]) -> Answered:
        """Answer for windows.

        Raises:
            FeaturesChangedError: the service must start again with other features.
            Exception: there is no answer; the windows are suppressed.
        """


class InProcess:
    """A version's engine in this process; the event loop waits for it.

    Args:
        predictor: the engine.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def ask(self, x_BTF: NDArray[np.float32]) -> Answered:
        """The engine's probabilities."""
        return Answered(probability(self._predictor.predict(x_BTF)), ("in-process",))
