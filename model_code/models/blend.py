"""The perceptron and gradient boosting, their log-odds averaged, in one graph.

The two err differently: on the reference ticks their average is better than either
(docs/models.md). Source: Breiman 1996, "Stacked Regressions", on averages of unlike models.

Shapes: B windows, T steps (64), F features (16), C classes (2).
"""

import numpy as np
import torch
from torch import Tensor

from model_code.models.boosting import fit_boosting
from model_code.models.mlp import SummaryMlp
from model_code.models.predictor import WindowModel
from model_code.models.summaries import summaries, summarise
from model_code.models.trees import TreeEnsemble
from model_code.settings import BlendSpec, MlpSpec

CHECKED = 4096  # windows on which the trees must agree with scikit-learn


class Blend(WindowModel):
    """A perceptron trained first, then gradient boosting on the same windows.

    Args:
        spec: the perceptron's sizes and its weight.
    """

    spec: BlendSpec

    def __init__(self, spec: BlendSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mlp = SummaryMlp(MlpSpec(hidden=spec.hidden, layers=spec.layers, dropout=spec.dropout))
        self.trees = TreeEnsemble()

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return logits_BC for raw features x_BTF; the perceptron's alone until trees are set."""
        logits_BC: Tensor = self.mlp(x_BTF)
        if self.trees.levels == 0:
            return logits_BC
        odds_B = self.trees(summarise(x_BTF))
        trees_BC = torch.stack([torch.zeros_like(odds_B), odds_B], dim=1)
        return self.spec.weight * logits_BC + (1.0 - self.spec.weight) * trees_BC

    def fit_windows(self, features_NF: np.ndarray, ends_B: np.ndarray) -> None:
        """Set the perceptron's mean and deviation of each summary."""
        self.mlp.fit_windows(features_NF, ends_B)

    def finish(
        self,
        features_NF: np.ndarray,
        labels_N: np.ndarray,
        train_ends: np.ndarray,
        validation_ends: np.ndarray,
        seed: int,
    ) -> None:
        """Fit the trees on the training windows, with early stopping on validation.

        The epochs' validation figures, and the choice of the best one, are the perceptron's alone.

        Raises:
            ExportError: the trees as tensors differ from scikit-learn's.
        """
        boosting = fit_boosting(features_NF, labels_N, train_ends, validation_ends, seed)
        self.trees.copy_from(boosting, summaries(features_NF, validation_ends[:CHECKED]))
