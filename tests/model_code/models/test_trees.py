"""Gradient boosting as tensors, and its blend with the perceptron."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from model_code.errors import ExportError
from model_code.models import network
from model_code.models.blend import Blend
from model_code.models.mlp import mlp_flops
from model_code.models.summaries import COUNT, summaries, summarise
from model_code.models.trees import TreeEnsemble
from model_code.settings import BlendSpec, TrainingSpec
from model_code.training.loop import train
from model_code.training.result import TrainingResult

SPEC = BlendSpec(hidden=16, layers=1, dropout=0.0, weight=0.25)
Fitted = tuple[HistGradientBoostingClassifier, np.ndarray]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """A model with trees of different depths, and coarse inputs that often equal a threshold."""
    rng = np.random.default_rng(4)
    x_BG = (rng.integers(-40, 40, (3000, COUNT)) / 10).astype(np.float32)
    y_B = (x_BG[:, 3] + 0.5 * x_BG[:, 60] * x_BG[:, 7] + rng.normal(size=3000) > 0).astype(int)
    model = HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=15).fit(x_BG, y_B)
    return model, x_BG


def test_trees_as_tensors_give_the_models_log_odds(fitted: Fitted) -> None:
    model, x_BG = fitted
    trees = TreeEnsemble()
    trees.copy_from(model, x_BG)
    assert trees.levels == max(int(stage[0].nodes["depth"].max()) for stage in model._predictors)
    np.testing.assert_allclose(
        trees(torch.from_numpy(x_BG)).numpy(), model.decision_function(x_BG), atol=1e-6
    )


def test_an_input_just_beside_a_threshold_goes_the_same_way(fitted: Fitted) -> None:
    model, x_BG = fitted
    trees = TreeEnsemble()
    trees.copy_from(model, x_BG)
    limits = np.concatenate(
        [
            stage[0].nodes["num_threshold"][stage[0].nodes["is_leaf"] == 0]
            for stage in model._predictors
        ]
    )
    near = np.unique(limits.astype(np.float32))
    sides = [np.nextafter(near, np.float32(side)) for side in (-np.inf, np.inf)]
    for values in (near, *sides):
        x = np.tile(values[:, None], (1, COUNT)).astype(np.float32)
        np.testing.assert_allclose(
            trees(torch.from_numpy(x)).numpy(), model.decision_function(x), atol=1e-6
        )


def test_trees_that_disagree_with_their_model_are_refused(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x_BG = fitted
    monkeypatch.setattr(model, "decision_function", lambda x: np.ones(len(x)))
    with pytest.raises(ExportError, match="differ from gradient boosting"):
        TreeEnsemble().copy_from(model, x_BG)


@pytest.fixture(scope="module")
def table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label: the mean of feature 0 over the last 4 rows is positive."""
    rng = np.random.default_rng(0)
    features_NF = rng.normal(size=(4000, 16)).astype(np.float32)
    means = np.convolve(features_NF[:, 0], np.ones(4) / 4)[:4000]
    return features_NF, (means > 0).astype(np.int8), np.arange(63, 4000)


def test_a_blend_averages_both_log_odds_once_its_trees_are_fitted(
    table: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    features_NF, labels_N, ends = table
    torch.manual_seed(1)
    model = Blend(SPEC).eval()
    model.fit_windows(features_NF, ends[:3000])
    x_BTF = torch.from_numpy(np.stack([features_NF[end - 63 : end + 1] for end in ends[-50:]]))
    with torch.inference_mode():
        assert torch.equal(model(x_BTF), model.mlp(x_BTF)), "no trees yet"
        model.finish(features_NF, labels_N, ends[:3000], ends[3000:3500], seed=1)
        logits_BC, alone_BC = model(x_BTF), model.mlp(x_BTF)
        odds_B = model.trees(summarise(x_BTF))
    expected_B = 0.25 * (alone_BC[:, 1] - alone_BC[:, 0]) + 0.75 * odds_B
    torch.testing.assert_close(logits_BC[:, 1] - logits_BC[:, 0], expected_B)
    right = (odds_B > 0).numpy() == (labels_N[ends[-50:]] == 1)
    assert right.mean() > 0.8
    np.testing.assert_allclose(
        summarise(x_BTF).numpy(), summaries(features_NF, ends[-50:]), atol=1e-5
    )

    network.save(model, tmp_path / "model.pt")
    found = network.load(tmp_path / "model.pt")
    assert isinstance(found, Blend)
    with torch.inference_mode():
        assert torch.equal(found(x_BTF), logits_BC)
    assert network.flops_per_window(SPEC) == SPEC.members * mlp_flops(SPEC)


def test_training_a_blend_ends_with_its_trees_and_resumes_to_the_same_weights(
    table: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    features_NF, labels_N, ends = table
    spec = TrainingSpec(epochs=2, windows_per_epoch=256, batch_size=64, precision="fp32")

    def run() -> TrainingResult:
        return train(
            features_NF,
            labels_N,
            ends[:2000],
            ends[2000:3000],
            network_spec=SPEC,
            training_spec=spec,
            checkpoints=tmp_path,
        )

    first, again = run(), run()
    assert isinstance(first.model, Blend)
    assert first.model.trees.levels > 0
    assert again.resumed_from == 2
    digests = [network.state_digest(done.model.state_dict()) for done in (first, again)]
    assert digests[0] == digests[1]
