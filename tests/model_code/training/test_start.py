"""Fine-tuning: the champion's weights are what training starts from, or it is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_code.artifacts import ArtifactRef
from model_code.errors import ConfigError
from model_code.models import network
from model_code.models.blend import Blend
from model_code.models.network import state_digest
from model_code.models.predictor import WindowModel
from model_code.settings import (
    AnyNetworkSpec,
    BlendSpec,
    BoostingSpec,
    FeatureSpec,
    MlpSpec,
    TrainingSpec,
    TreesSpec,
)
from model_code.training.loop import train
from model_code.training.result import TrainingResult
from model_code.training.start import StartingPoint, begin_from

MLP = MlpSpec(hidden=8, layers=1)
BLEND = BlendSpec(hidden=8, layers=1, members=2, trees=TreesSpec(max_iter=5))
SPEC = TrainingSpec(
    epochs=2,
    windows_per_epoch=96,
    batch_size=32,
    learning_rate=3e-3,
    mirror=False,
    start="champion",
)
FRESH = SPEC.model_copy(update={"start": "fresh"})
FEATURES = FeatureSpec(
    feature_set="paired", label="executable-roundtrip", leaders={"B": ("A",)}, horizon_ms=100.0
)
POINT = StartingPoint(
    weights=ArtifactRef.of(name="model.pt", sha256="0" * 64),
    network=BLEND,
    features=FEATURES,
    trained_until="2024-08-07T20:00:00.000000000Z",
)


def fitted(
    folder: Path,
    spec: TrainingSpec = SPEC,
    kind: AnyNetworkSpec = MLP,
    shift: float = 0.0,
    **options: Any,
) -> TrainingResult:
    rng = np.random.default_rng(3)
    features_NF = rng.normal(shift, 1.0, (500, 16)).astype(np.float32)
    label_N = (features_NF[:, 0] > shift).astype(np.int8)
    return train(
        features_NF,
        label_N,
        np.arange(63, 400),
        np.arange(400, 500),
        network_spec=kind,
        training_spec=spec,
        checkpoints=folder,
        **options,
    )


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> WindowModel:
    return fitted(tmp_path_factory.mktemp("champion"), FRESH).model


def test_training_starts_from_the_weights_and_the_standardisation(
    tmp_path: Path, champion: WindowModel
) -> None:
    still = SPEC.model_copy(update={"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1})
    result = fitted(tmp_path, still, shift=5.0, start=champion)
    found, expected = result.model.state_dict(), champion.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)
    assert torch.equal(result.model.feature_mean_F, champion.feature_mean_F), "not of its windows"


def test_it_resumes_bit_identically_and_not_from_another_champions_checkpoint(
    tmp_path: Path, champion: WindowModel
) -> None:
    straight = fitted(tmp_path / "straight", start=champion)

    class KilledError(Exception):
        pass

    def stop(_: object) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        fitted(tmp_path / "killed", start=champion, on_epoch=stop)
    resumed = fitted(tmp_path / "killed", start=champion)
    assert resumed.resumed_from == 1
    assert state_digest(resumed.model.state_dict()) == state_digest(straight.model.state_dict())
    other = fitted(tmp_path / "killed", start=straight.model)
    assert other.resumed_from is None
    assert "other data or another specification" in other.resume_note
    assert state_digest(other.model.state_dict()) != state_digest(straight.model.state_dict())
    moved = fitted(tmp_path / "straight", start=champion, shift=1.0)
    assert moved.resumed_from is None, "the features differ, though the standardisation is kept"


def test_the_trees_of_a_blend_are_fitted_anew(tmp_path: Path) -> None:
    first = fitted(tmp_path / "first", FRESH, BLEND).model
    fresh = network.build(BLEND)
    begin_from(fresh, first)
    assert isinstance(fresh, Blend)
    assert fresh.trees.levels == 0
    for name, tensor in fresh.state_dict().items():
        if not name.startswith("trees."):
            assert torch.equal(tensor, first.state_dict()[name]), name
    tuned = fitted(tmp_path / "tuned", SPEC, BLEND, start=first).model
    assert isinstance(tuned, Blend)
    assert tuned.trees.levels > 0


def test_other_kinds_and_sizes_are_refused(tmp_path: Path, champion: WindowModel) -> None:
    for kind, message in (
        (MLP.model_copy(update={"hidden": 9}), "a mlp cannot start .* of a mlp of other sizes"),
        (BLEND, "a blend cannot start from the weights of a mlp"),
        (BoostingSpec(), "a boosting cannot start .*: it has none"),
    ):
        with pytest.raises(ConfigError, match=message):
            fitted(tmp_path, SPEC, kind, start=champion)
    with pytest.raises(ConfigError, match="given no champion to start from"):
        fitted(tmp_path)
    with pytest.raises(ConfigError, match="is fresh, but the training was given a model"):
        fitted(tmp_path, FRESH, start=champion)


def test_a_starting_point_says_why_it_does_not_suit() -> None:
    later = "2024-08-08T20:00:00.000000000Z"
    free = BLEND.model_copy(update={"dropout": 0.4, "trees": TreesSpec(), "weight": "fitted"})
    assert POINT.unfit_for(free, FEATURES, later) == ""
    assert POINT.unfit_for(free, FEATURES, POINT.trained_until) == ""
    wider = BLEND.model_copy(update={"hidden": 9, "members": 3})
    horizon = FEATURES.model_copy(update={"horizon_ms": 250.0, "leaders": {}})
    for network_spec, features, until, reason in (
        (MLP, FEATURES, later, "is of kind blend, not mlp"),
        (wider, FEATURES, later, "network differs in hidden, members"),
        (BLEND, horizon, later, "features differ in leaders, horizon_ms"),
        (BLEND, FEATURES, "2024-08-06T20:00:00.000000000Z", "may know the validation windows"),
    ):
        assert reason in POINT.unfit_for(network_spec, features, until)
    given = POINT.model_dump_json()
    assert StartingPoint.model_validate_json(given) == POINT
