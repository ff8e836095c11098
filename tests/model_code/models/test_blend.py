"""The weight of perceptrons against trees, fitted on the validation windows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import log_loss

from model_code.models import network
from model_code.models.blend import Blend, fit_weight
from model_code.settings import BlendSpec, NightlySpec, TreesSpec
from model_code.settings.changes import assign

SPEC = BlendSpec(hidden=8, layers=1, weight="fitted", trees=TreesSpec(max_iter=8))


def test_the_fitted_weight_has_the_lowest_log_loss() -> None:
    rng = np.random.default_rng(1)
    truth_B = rng.normal(size=4000)
    label_B = (rng.random(4000) < 1 / (1 + np.exp(-truth_B))).astype(np.int8)
    one_B, other_B = (truth_B + rng.normal(0, spread, 4000) for spread in (0.5, 1.0))
    found = fit_weight(one_B, other_B, label_B)

    def loss(weight: float) -> float:
        odds_B = weight * one_B + (1 - weight) * other_B
        return float(log_loss(label_B, 1 / (1 + np.exp(-odds_B))))

    grid = np.linspace(0, 1, 41)
    assert loss(found) <= min(map(loss, grid)) + 1e-9
    assert found > 0.5, "the better one counts more"
    assert fit_weight(truth_B, -truth_B, label_B) > 0.99
    assert fit_weight(-truth_B, truth_B, label_B) < 0.01


def test_the_fitted_number_takes_its_place_in_the_specification_and_the_file(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(2)
    features_NF = rng.normal(size=(900, 16)).astype(np.float32)
    label_N = (features_NF[:, 0] + rng.normal(size=900) > 0).astype(np.int8)
    torch.manual_seed(1)
    model = network.build(SPEC)
    assert isinstance(model, Blend)
    model.fit_windows(features_NF, np.arange(63, 600))
    model.eval().finish(features_NF, label_N, np.arange(63, 600), np.arange(600, 900), seed=1)
    assert model.spec == SPEC.model_copy(update={"weight": model.weight})
    assert 0.0 <= model.weight < 0.2, "these perceptrons have learned nothing"
    network.save(model, tmp_path / "model.pt")
    found = network.load(tmp_path / "model.pt")
    assert found.spec == model.spec
    x_BTF = torch.from_numpy(features_NF[:640].reshape(10, 64, 16))
    with torch.inference_mode():
        assert torch.equal(found(x_BTF), model(x_BTF))


def test_it_is_set_like_any_other_value() -> None:
    changed = assign(NightlySpec(), ["network.weight=fitted", "training.distillation=0.5"])
    assert isinstance(changed.network, BlendSpec)
    assert changed.network.weight == "fitted"
    assert changed.training.distillation == 0.5
    assert assign(NightlySpec(), ["training.start=champion"]).starts_from_champion
    two = assign(NightlySpec(), ["training.auxiliary=[20, 500]"])
    assert two.training.auxiliary == (20.0, 500.0)
    for wrong in (
        "network.weight=1.5",
        "network.weight=best",
        "training.start=yesterday",
        "training.auxiliary=[0]",
    ):
        with pytest.raises(ValidationError):
            assign(NightlySpec(), [wrong])
