"""Mirroring windows in training."""

import numpy as np
import pytest
import torch

from model_code.errors import ConfigError
from model_code.features.definition import mirror
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH, FeatureSpec
from model_code.training.mirror import Mirror, mirror_of


def test_about_half_of_the_windows_are_mirrored_as_a_whole() -> None:
    shape = (4000, SEQUENCE_LENGTH, FEATURE_COUNT)
    x_BTF = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    column_F, sign_F = mirror("paired")
    swapped_BTF = x_BTF[:, :, column_F] * sign_F
    torch.manual_seed(3)
    found_BTF = Mirror(FeatureSpec(feature_set="paired"))(torch.from_numpy(x_BTF)).numpy()
    same_B = (found_BTF == x_BTF).all(axis=(1, 2))
    mirrored_B = (found_BTF == swapped_BTF).all(axis=(1, 2))
    assert (same_B ^ mirrored_B).all()
    assert 0.45 < mirrored_B.mean() < 0.55


@pytest.mark.parametrize("spec", [None, FeatureSpec(label="mid-move")])
def test_a_label_with_a_direction_has_no_mirror_image(spec: FeatureSpec | None) -> None:
    with pytest.raises(ConfigError, match="without direction"):
        Mirror(spec)


def test_a_set_without_a_mirror_image_is_not_mirrored() -> None:
    spec = FeatureSpec(feature_set="exogenous", exogenous=("macro.vix",))
    assert mirror_of(None, spec) is None
    assert mirror_of(None, FeatureSpec(feature_set="depth")) is not None
    with pytest.raises(ConfigError, match="feature set exogenous has no mirror image"):
        mirror_of(True, spec)
