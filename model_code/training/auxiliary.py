"""Auxiliary tasks: the label at other horizons too, in training only.

Each horizon is one more logit of the layer before the network's logits. The shared layers learn
from all of them; the extra weights are no part of the network, which is saved and exported without
them. Source: Caruana 1997, "Multitask Learning", Machine Learning 28.

Shapes: B windows, T steps, F features, N table rows, A auxiliary horizons.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model_code.errors import ConfigError
from model_code.features.dataset import FeatureTable
from model_code.features.labels import UNOBSERVED, mid_move, round_trip
from model_code.models.predictor import WindowModel
from model_code.settings import SEQUENCE_LENGTH

WEIGHT = 0.5  # of the auxiliary losses' mean, beside the label's loss


def auxiliary_labels(
    table: FeatureTable,
    horizons_ms: Sequence[float],
    train_ends: np.ndarray,
    validation_ends: np.ndarray,
) -> np.ndarray | None:
    """Labels (N, A) int8 at the training windows' ends; None without horizons.

    -1, and not learned from, where a longer horizon reaches the rows of the validation windows, or
    was not observed, and at every other row.

    Args:
        table: features, quotes and labels; its specification has the label's rule and cost.
        horizons_ms: of the auxiliary labels.
        train_ends: row index of each training window's last step.
        validation_ends: the same for validation.

    Raises:
        ConfigError: the label does not follow from one instrument's quotes.
    """
    if not horizons_ms:
        return None
    spec = table.meta.spec
    if table.meta.given_labels or spec.chosen_label == "cross-venue":
        raise ConfigError(
            "training.auxiliary needs a label that follows from one instrument's quotes, found "
            + ("the source's own" if table.meta.given_labels else spec.chosen_label),
            remedy="set training.auxiliary=[], or choose another features.label",
        )
    rule = mid_move if spec.chosen_label == "mid-move" else round_trip
    last_B = table.timestamp_N[train_ends]
    validated_from = table.timestamp_N[validation_ends - (SEQUENCE_LENGTH - 1)].min()
    label_NA = np.full((len(table.label_N), len(horizons_ms)), UNOBSERVED, np.int8)
    for column, horizon_ms in enumerate(horizons_ms):
        label_N = np.full(len(table.label_N), UNOBSERVED, np.int8)
        for day in table.meta.days:
            rows = slice(day.first, day.first + day.rows)
            label_N[rows] = rule(
                table.timestamp_N[rows],
                table.bid_N[rows],
                table.ask_N[rows],
                horizon_ms,
                spec.cost_bps,
                table.segment_N[rows],
            )
        reaches_B = (last_B < validated_from) & (last_B + round(horizon_ms * 1e6) >= validated_from)
        label_NA[train_ends, column] = np.where(reaches_B, UNOBSERVED, label_N[train_ends])
    return label_NA


def require_labels(horizons_ms: Sequence[float], label_NA: np.ndarray | None) -> None:
    """Check that there are labels if the specification wants them.

    Raises:
        ConfigError: they are missing.
    """
    if horizons_ms and label_NA is None:
        raise ConfigError(
            "training.auxiliary needs the labels at its horizons",
            remedy="pass them to the training, or set training.auxiliary=[]",
        )


class AuxiliaryHeads(nn.Module):
    """The network with one more logit for each horizon at each of its heads.

    Args:
        model: the network, which stays as it is.
        horizons: how many.
    """

    def __init__(self, model: WindowModel, horizons: int) -> None:
        super().__init__()
        self.model = model
        self.extra = nn.ModuleList(nn.Linear(head.in_features, horizons) for head in model.heads())

    def forward(self, x_BTF: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The network's logits, and logits_BA of each head."""
        inputs: dict[nn.Module, Tensor] = {}

        def keep(head: nn.Module, given: tuple[Tensor, ...]) -> None:
            inputs[head] = given[0]

        heads = self.model.heads()
        handles = [head.register_forward_pre_hook(keep) for head in heads]
        try:
            logits = self.model(x_BTF)
        finally:
            for handle in handles:
                handle.remove()
        return logits, [layer(inputs[head]) for layer, head in zip(self.extra, heads, strict=True)]


def auxiliary_loss(logits: Sequence[Tensor], label_BA: Tensor) -> Tensor:
    """`WEIGHT` times the mean cross-entropy over heads, horizons and observed windows.

    Args:
        logits: logits_BA of each head.
        label_BA: 1, 0 or -1 (not observed).
    """
    observed_BA = (label_BA >= 0).float()
    loss_BA = torch.stack(
        [
            functional.binary_cross_entropy_with_logits(
                found_BA.float(), label_BA.float().clamp(min=0.0), reduction="none"
            )
            for found_BA in logits
        ]
    ).mean(dim=0)
    count_A = observed_BA.sum(dim=0).clamp(min=1.0)
    return WEIGHT * ((loss_BA * observed_BA).sum(dim=0) / count_A).mean()
