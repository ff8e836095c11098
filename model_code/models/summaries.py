"""Summaries of a window: its last row, lagged rows, and means over trailing spans.

Gradient boosting and the multi-layer perceptron see the same 112 columns.

Shapes: B windows, T steps (64), F features (16), G summary columns (112).
"""

import numpy as np
import torch
from torch import Tensor

from model_code.features.column import Column
from model_code.features.windows import gather, require_finite
from model_code.settings import FEATURE_COUNT

LAGS = (1, 2, 4)  # steps before the last
SPANS = (4, 16, 64)  # trailing steps averaged
COUNT = FEATURE_COUNT * (1 + len(LAGS) + len(SPANS))
CHUNK = 4096


def summaries(features_NF: Column, ends_B: np.ndarray) -> np.ndarray:
    """Float32 (B, G) of the windows that end at these rows; sums in FP64, so exact if constant.

    Raises:
        DataError: a window contains NaN or infinity, which trees would take for a missing value.
    """
    parts = []
    for start in range(0, len(ends_B), CHUNK):
        x_BTF = gather(features_NF, ends_B[start : start + CHUNK])
        require_finite(x_BTF)
        rows = [x_BTF[:, -1 - lag] for lag in (0, *LAGS)]
        means = [
            x_BTF[:, -span:].mean(axis=1, dtype=np.float64).astype(np.float32) for span in SPANS
        ]
        parts.append(np.concatenate(rows + means, axis=1))
    x_BG: np.ndarray = np.concatenate(parts)
    return x_BG


def summarise(x_BTF: Tensor) -> Tensor:
    """The same columns (B, G) of windows as tensors, in the same order."""
    rows = [x_BTF[:, -1 - lag] for lag in (0, *LAGS)]
    means = [x_BTF[:, -span:].mean(dim=1) for span in SPANS]
    return torch.cat(rows + means, dim=1)
