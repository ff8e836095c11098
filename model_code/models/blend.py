"""Perceptrons and gradient boosting, their log-odds averaged, in one graph.

The two err differently: on the reference ticks their average is better than either
(docs/models.md). Source: Breiman 1996, "Stacked Regressions", on averages of unlike models.

Shapes: B windows, T steps (64), F features (16), C classes (2).
"""

import numpy as np
from torch import Tensor

from model_code.models.boosting import CHECKED, fit_boosting
from model_code.models.mlp import SummaryMlp
from model_code.models.predictor import WindowModel
from model_code.models.summaries import summaries, summarise
from model_code.models.trees import TreeEnsemble
from model_code.settings import BlendSpec, MlpSpec


class Blend(WindowModel):
    """Perceptrons trained first, then gradient boosting on the same windows.

    Args:
        spec: the perceptrons' number, sizes and weight, and the trees' limits.
    """

    spec: BlendSpec

    def __init__(self, spec: BlendSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mlp = SummaryMlp(
            MlpSpec(hidden=spec.hidden, layers=spec.layers, dropout=spec.dropout), spec.members
        )
        self.trees = TreeEnsemble()

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return logits_BC for raw features x_BTF; the perceptrons' alone until trees are set.

        In training: what the perceptrons return in training.
        """
        x_BG = summarise(x_BTF)
        logits_BC = self.mlp.of_summaries(x_BG)
        if self.trees.levels == 0 or self.training:
            return logits_BC
        return self.spec.weight * logits_BC + (1.0 - self.spec.weight) * self.trees.logits(x_BG)

    def loss(self, logits: Tensor, label_B: Tensor, smoothing: float = 0.0) -> Tensor:
        """The perceptrons' loss."""
        return self.mlp.loss(logits, label_B, smoothing)

    def fit_windows(self, features_NF: np.ndarray, ends_B: np.ndarray) -> None:
        """Set the perceptrons' mean and deviation of each summary."""
        self.mlp.fit_windows(features_NF, ends_B)

    def finish(
        self,
        features_NF: np.ndarray,
        labels_N: np.ndarray,
        train_ends: np.ndarray,
        validation_ends: np.ndarray,
        seed: int,
        validation_weight_B: np.ndarray | None = None,
    ) -> None:
        """Fit the trees on the training windows, with early stopping on validation.

        The epochs' validation figures, and the choice of the best one, are the perceptrons' alone.

        Raises:
            ExportError: the trees as tensors differ from scikit-learn's.
        """
        boosting = fit_boosting(
            features_NF,
            labels_N,
            train_ends,
            validation_ends,
            seed,
            self.spec.trees,
            validation_weight_B,
        )
        self.trees.copy_from(boosting, summaries(features_NF, validation_ends[:CHECKED]))
