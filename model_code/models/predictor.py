"""What every network shares: raw windows in, two logits out, standardisation inside the graph.

Shapes: B windows, T steps (64), F features (16), C classes (2), N table rows.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model_code.errors import DataError
from model_code.features.column import Column
from model_code.settings import FEATURE_COUNT

CLAMP = 10.0  # standard deviations; one outlier must not saturate the network or FP16
ROWS_PER_CHUNK = 1 << 20


class WindowModel(nn.Module, ABC):
    """Raw features of one window -> logits of (no opportunity, opportunity) within the horizon.

    Standardisation is part of the graph, so callers pass raw features.

    Attributes:
        spec: kind and sizes.
    """

    spec: Any
    feature_mean_F: Tensor
    feature_std_F: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("feature_mean_F", torch.zeros(FEATURE_COUNT))
        self.register_buffer("feature_std_F", torch.ones(FEATURE_COUNT))

    @abstractmethod
    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return logits_BC for raw features x_BTF (float32, batch first)."""

    def loss(self, logits: Tensor, label_B: Tensor, smoothing: float = 0.0) -> Tensor:
        """What training minimises, in nats: cross-entropy of `forward`'s logits in training.

        Args:
            logits: `forward`'s.
            label_B: 0 or 1, int64; or targets between them, float32.
            smoothing: share of the label's weight that both classes get alike.
        """
        return cross_entropy(logits, label_B, smoothing)

    def heads(self) -> list[nn.Linear]:
        """The layers that return logits: what auxiliary tasks are learned beside."""
        return []

    def standardise(self, x_BTF: Tensor) -> Tensor:
        """Standard deviations from the training mean, clamped."""
        z_BTF = (x_BTF - self.feature_mean_F) / self.feature_std_F
        return z_BTF.clamp(-CLAMP, CLAMP)

    def fit_windows(self, features_NF: Column, ends_B: np.ndarray) -> None:
        """Set what the graph needs to know of whole training windows; most networks nothing.

        Args:
            features_NF: feature table, possibly memory-mapped.
            ends_B: row index of each training window's last step.
        """

    def finish(
        self,
        features_NF: Column,
        labels_N: np.ndarray,
        train_ends: np.ndarray,
        validation_ends: np.ndarray,
        seed: int,
        validation_weight_B: np.ndarray | None = None,
    ) -> None:
        """Fit what gradient descent does not, after the best epoch is chosen; mostly nothing."""

    def fit_standardisation(self, features_NF: Column, rows_N: Column | None = None) -> None:
        """Set the graph's mean and standard deviation from training rows only.

        A constant feature gets deviation 1, so that it cannot explode later.

        Args:
            features_NF: feature table, possibly memory-mapped; read in chunks.
            rows_N: boolean, the rows to use; None means all.

        Raises:
            DataError: no rows, the wrong number of features, or a non-finite value.
        """
        if features_NF.ndim != 2 or features_NF.shape[1] != FEATURE_COUNT:
            raise DataError(
                f"features have shape {features_NF.shape}, expected (rows, {FEATURE_COUNT})",
                remedy="build the feature table again with this version",
            )
        count, mean_F, square_F = 0, np.zeros(FEATURE_COUNT), np.zeros(FEATURE_COUNT)
        for start in range(0, len(features_NF), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            chunk_NF = features_NF[rows] if rows_N is None else features_NF[rows][rows_N[rows]]
            chunk_NF = chunk_NF.astype(np.float64)
            if len(chunk_NF) == 0:
                continue
            if not np.isfinite(chunk_NF).all():
                column = int(np.flatnonzero(~np.isfinite(chunk_NF).all(axis=0))[0])
                raise DataError(
                    "a feature of a training row is not finite",
                    where=f"feature {column}, rows {start} to {start + len(features_NF[rows])}",
                    remedy="quarantine its tick (validation), then build the features again",
                )
            # merge means and squared deviations by chunks (Chan, Golub, LeVeque 1983)
            total, delta_F = count + len(chunk_NF), chunk_NF.mean(axis=0) - mean_F
            square_F += chunk_NF.var(axis=0) * len(chunk_NF)
            square_F += delta_F**2 * (count * len(chunk_NF) / total)
            mean_F += delta_F * (len(chunk_NF) / total)
            count = total
        if count == 0:
            raise DataError("no training row to fit the standardisation on")
        std_F = np.sqrt(square_F / count)
        std_F[std_F <= 1e-6 * np.maximum(np.abs(mean_F), 1e-6)] = 1.0
        self.feature_mean_F.copy_(torch.from_numpy(mean_F))
        self.feature_std_F.copy_(torch.from_numpy(std_F))


def cross_entropy(logits_BC: Tensor, label_B: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy in FP32; arguments as `WindowModel.loss`."""
    if label_B.is_floating_point():
        label_B = torch.stack([1.0 - label_B, label_B], dim=1)
    return functional.cross_entropy(logits_BC.float(), label_B, label_smoothing=smoothing)
