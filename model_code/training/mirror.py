"""Augmentation: the same market with its sides swapped. B windows, T steps, F features."""

import torch
from torch import Tensor

from model_code.errors import ConfigError
from model_code.features.definition import has_mirror, mirror
from model_code.settings import FeatureSpec

DIRECTED = frozenset({"mid-move"})  # labels that mean one side of the market


def mirror_of(wanted: bool | None, spec: FeatureSpec | None) -> "Mirror | None":
    """The augmentation, or none.

    Args:
        wanted: None: where the features and their mirror image are known and the label has no
            direction.
        spec: the features and the label; None if unknown.

    Raises:
        ConfigError: it is wanted, but not possible.
    """
    possible = (
        spec is not None and spec.chosen_label not in DIRECTED and has_mirror(spec.chosen_set)
    )
    return Mirror(spec) if wanted or (wanted is None and possible) else None


class Mirror:
    """Swaps the sides of the market (`definition.mirror`) in each window with probability 1/2.

    The label stays: a round trip may begin with buying or selling, and a crossing has no direction.
    Exact without costs; a cost is charged on the entry price, which mirrored prices change.

    Args:
        spec: names the feature set and the label.

    Raises:
        ConfigError: the label has a direction, the set has no mirror image, or the specification
            is missing.
    """

    def __init__(self, spec: FeatureSpec | None) -> None:
        if spec is None or spec.chosen_label in DIRECTED:
            raise ConfigError(
                "training.mirror needs features and a label without direction, found "
                + ("none" if spec is None else f"the label {spec.chosen_label}"),
                remedy="set training.mirror=false, or choose another features.label",
            )
        column_F, sign_F = mirror(spec.chosen_set)
        self._column_F, self._sign_F = torch.from_numpy(column_F), torch.from_numpy(sign_F)

    def __call__(self, x_BTF: Tensor) -> Tensor:
        """The windows, some mirrored; draws from torch's generator of the CPU."""
        swap_B = torch.rand(len(x_BTF)) < 0.5
        mirrored_BTF = x_BTF[:, :, self._column_F] * self._sign_F
        return torch.where(swap_B[:, None, None], mirrored_BTF, x_BTF)
