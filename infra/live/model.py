"""What answers for the windows of the service.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_code.engines.protocol import Predictor
from model_code.live.path import Flag
from model_code.models.probability import probability


class Model(Protocol):
    """A model that may answer from elsewhere.

    Attributes:
        flags: of its decisions.
    """

    flags: tuple[Flag, ...]

    async def ask(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float64]:
        """The probability of an opportunity, (B,)."""


class InProcess:
    """A version's engine in this process; the event loop waits for it.

    Args:
        predictor: the engine.
    """

    flags: tuple[Flag, ...] = ("in-process",)

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def ask(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float64]:
        """The probability of an opportunity, (B,)."""
        return probability(self._predictor.predict(x_BTF))
