"""Engines that answer from the windows, or fail at a call."""

import numpy as np
from numpy.typing import NDArray


class Answers:
    """Ranks windows by the last row's first feature."""

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        logit_B = x_BTF[:, -1, 0]
        return np.stack([np.zeros_like(logit_B), logit_B], axis=1)


class Fails(Answers):
    """Answers so many calls, then raises."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.calls == self.after:
            raise RuntimeError(f"call {self.after} failed")
        return super().predict(x_BTF)
