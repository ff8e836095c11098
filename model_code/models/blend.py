"""Perceptrons and gradient boosting, their log-odds averaged, in one graph.

The two err differently: on the reference ticks their average is better than either
(docs/models.md). Source: Breiman 1996, "Stacked Regressions", on averages of unlike models.

Shapes: B windows, T steps (64), F features (16), C classes (2).
"""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from model_code.features.column import Column
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
        return self.weight * logits_BC + (1.0 - self.weight) * self.trees.logits(x_BG)

    @property
    def weight(self) -> float:
        """Of the perceptrons; a half until it is fitted."""
        return 0.5 if self.spec.weight == "fitted" else self.spec.weight

    def loss(self, logits: Tensor, label_B: Tensor, smoothing: float = 0.0) -> Tensor:
        """The perceptrons' loss."""
        return self.mlp.loss(logits, label_B, smoothing)

    def heads(self) -> list[nn.Linear]:
        """The perceptrons'."""
        return self.mlp.heads()

    def fit_windows(self, features_NF: Column, ends_B: np.ndarray) -> None:
        """Set the perceptrons' mean and deviation of each summary."""
        self.mlp.fit_windows(features_NF, ends_B)

    def finish(
        self,
        features_NF: Column,
        labels_N: np.ndarray,
        train_ends: np.ndarray,
        validation_ends: np.ndarray,
        seed: int,
        validation_weight_B: np.ndarray | None = None,
    ) -> None:
        """Fit the trees on the training windows, with early stopping on validation.

        The epochs' validation figures, and the choice of the best one, are the perceptrons' alone.
        A weight that is to be fitted takes its place in `spec`.

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
        if self.spec.weight == "fitted":
            x_BG = summaries(features_NF, validation_ends)
            with torch.inference_mode():
                logits_BC = self.mlp.eval().of_summaries(torch.from_numpy(x_BG)).double().numpy()
            found = fit_weight(
                logits_BC[:, 1] - logits_BC[:, 0],
                boosting.decision_function(x_BG),
                labels_N[validation_ends],
                validation_weight_B,
            )
            self.spec = self.spec.model_copy(update={"weight": found})


def fit_weight(
    perceptrons_B: np.ndarray,
    trees_B: np.ndarray,
    label_B: np.ndarray,
    weight_B: np.ndarray | None = None,
) -> float:
    """The weight of the perceptrons, 0 to 1, with the lowest log loss of the averaged log-odds.

    The loss is convex in the weight. Source: Breiman 1996, "Stacked Regressions", with weights that
    are not negative and add up to 1.

    Args:
        perceptrons_B: log-odds of class 1.
        trees_B: the same.
        label_B: 0 or 1.
        weight_B: how many windows each stands for; None: one each.
    """
    sign_B = np.where(label_B == 1, -1.0, 1.0)

    def loss(weight: float) -> float:
        odds_B = weight * perceptrons_B + (1.0 - weight) * trees_B
        return float(np.average(np.logaddexp(0.0, sign_B * odds_B), weights=weight_B))

    return float(minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded").x)
