"""Distillation: no teacher saw what it teaches, and a resumed training has the same targets."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from model_code.errors import ConfigError, DataError
from model_code.models.boosting import fit_boosting
from model_code.models.network import state_digest
from model_code.models.summaries import summaries
from model_code.settings import BlendSpec, BoostingSpec, MlpSpec, TrainingSpec, TreesSpec
from model_code.training import distillation
from model_code.training.distillation import BLOCKS, Instants, blocks, targets
from model_code.training.loop import train

MS = 1_000_000
HORIZON_MS = 100.0
SPEC = TrainingSpec(
    epochs=2, windows_per_epoch=128, batch_size=32, patience=9, mirror=False, distillation=0.5
)
MLP = MlpSpec(hidden=8, layers=1)
WINDOWS = 600
ROWS = WINDOWS + 63


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    few = partial(fit_boosting, trees=TreesSpec(max_iter=8, max_leaf_nodes=15))
    monkeypatch.setattr(distillation, "fit_boosting", few)


def table(rows: int = ROWS) -> tuple[NDArray[np.float32], NDArray[np.int8], Instants]:
    """Two instruments whose rows alternate in time; the label is the sign of feature 0, noisily."""
    rng = np.random.default_rng(2)
    features_NF = rng.normal(size=(2 * rows, 16)).astype(np.float32)
    label_N = (features_NF[:, 0] + rng.normal(size=2 * rows) > 0).astype(np.int8)
    stamps = np.cumsum(rng.exponential(30.0 * MS, (rows, 2)).astype(np.int64), axis=0)
    return features_NF, label_N, Instants(10**18 + stamps.T.ravel(), HORIZON_MS)


def ends(rows: int = ROWS) -> NDArray[np.int64]:
    """Of every window of both instruments."""
    return np.concatenate([np.arange(63, rows), rows + np.arange(63, rows)])


def span(instants: Instants, end: int) -> tuple[int, int]:
    """First and last instant of a window and its label."""
    time_N = instants.timestamp_N
    return int(time_N[end - 63]), int(time_N[end]) + round(HORIZON_MS * MS)


def test_every_window_is_taught_once_by_windows_that_share_no_instant_with_its_block() -> None:
    _, _, instants = table()
    found = blocks(ends(), instants)
    assert len(found) == BLOCKS
    taught = np.concatenate([block.taught_ends for block in found])
    assert sorted(taught) == sorted(ends())
    for block in found:
        parts = [
            [span(instants, int(end)) for end in chosen]
            for chosen in (block.taught_ends, block.stop_ends, block.fit_ends)
        ]
        assert [len(part) > 20 for part in parts] == [True] * 3
        for number, part in enumerate(parts):
            first, last = min(start for start, _ in part), max(stop for _, stop in part)
            for later in parts[number + 1 :]:
                assert all(stop < first or start > last for start, stop in later)


def test_a_label_that_only_a_teacher_of_the_same_windows_could_know_is_not_learned() -> None:
    """Each window has a code of its own, and labels are random: only memory can predict them."""
    rng = np.random.default_rng(4)
    features_NF, _, instants = table()
    # the code is constant over 64 rows, so that every window between shares it with its neighbours
    features_NF[:, 0] = np.repeat(rng.normal(size=len(features_NF) // 32 + 1), 32)[
        : len(features_NF)
    ]
    label_N = (np.repeat(rng.integers(0, 2, len(features_NF) // 32 + 1), 32))[: len(features_NF)]
    label_N = label_N.astype(np.int8)
    train_ends = ends()
    trees = TreesSpec(max_iter=40)
    own = fit_boosting(features_NF, label_N, train_ends, train_ends, 7, trees)
    memorised_B = own.predict_proba(summaries(features_NF, train_ends))[:, 1]
    assert roc_auc_score(label_N[train_ends], memorised_B) > 0.95, "the plant works"
    taught_N = targets(features_NF, label_N, train_ends, instants, 1.0, seed=7)
    assert roc_auc_score(label_N[train_ends], taught_N[train_ends]) < 0.7


def test_a_target_lies_between_the_label_and_the_teachers_probability() -> None:
    features_NF, label_N, instants = table()
    train_ends = ends()[::2]
    whole_N, half_N = (
        targets(features_NF, label_N, train_ends, instants, weight, seed=7) for weight in (1.0, 0.5)
    )
    assert ((whole_N[train_ends] > 0) & (whole_N[train_ends] < 1)).all()
    expected_B = 0.5 * label_N[train_ends] + 0.5 * whole_N[train_ends]
    np.testing.assert_allclose(half_N[train_ends], expected_B, rtol=1e-6)
    assert roc_auc_score(label_N[train_ends], whole_N[train_ends]) > 0.6, "the teacher has learned"
    others = np.setdiff1d(np.arange(len(label_N)), train_ends)
    assert np.isnan(whole_N[others]).all()


def fitted(folder: Path, spec: TrainingSpec = SPEC, **options: Any) -> Any:
    features_NF, label_N, instants = table()
    chosen = ends()
    return train(
        features_NF,
        label_N,
        chosen[:500],
        chosen[900:],
        **{
            "network_spec": MLP,
            "training_spec": spec,
            "checkpoints": folder,
            "instants": instants,
            **options,
        },
    )


class KilledError(Exception):
    pass


def test_it_changes_the_weights_and_a_killed_training_resumes_bit_identically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = fitted(tmp_path / "straight")
    plain = fitted(tmp_path / "plain", SPEC.model_copy(update={"distillation": 0.0}))
    assert state_digest(result.model.state_dict()) != state_digest(plain.model.state_dict())

    def stop(_: object) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        fitted(tmp_path / "killed", on_epoch=stop)
    resumed = fitted(tmp_path / "killed")
    assert resumed.resumed_from == 1
    assert state_digest(resumed.model.state_dict()) == state_digest(result.model.state_dict())
    assert [epoch.train_loss for epoch in resumed.history] == [
        epoch.train_loss for epoch in result.history
    ]
    monkeypatch.setattr(
        distillation, "targets", lambda *_: pytest.fail("a finished training needs no teacher")
    )
    assert fitted(tmp_path / "killed").resumed_from == 2


def test_checkpoints_of_other_instants_are_not_resumed_from(tmp_path: Path) -> None:
    fitted(tmp_path)
    _, _, instants = table()
    other = Instants(instants.timestamp_N, HORIZON_MS + 1.0)
    assert fitted(tmp_path, instants=other).resumed_from is None


def test_the_members_of_a_blend_are_taught_and_boosting_alone_has_nothing_to_teach(
    tmp_path: Path,
) -> None:
    trees = TreesSpec(max_iter=5)
    blend = BlendSpec(hidden=8, layers=1, members=2, trees=trees)
    made = fitted(tmp_path / "blend", network_spec=blend)
    assert np.isfinite([epoch.train_loss for epoch in made.history]).all()
    plain = SPEC.model_copy(update={"distillation": 0.0})
    alone = [
        fitted(tmp_path / "boosting", spec, network_spec=BoostingSpec(trees=trees))
        for spec in (SPEC, plain)
    ]
    first, second = (state_digest(found.model.state_dict()) for found in alone)
    assert first == second


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the instants of the rows"):
        fitted(tmp_path, instants=None)
    features_NF, label_N, instants = table()
    with pytest.raises(DataError, match="4 training windows"):
        targets(features_NF, label_N, ends()[:4], instants, 0.5, seed=7)
    one_class_N = label_N.copy()
    one_class_N[len(label_N) // 8 : len(label_N) // 2] = 1
    one_class_N[len(label_N) * 5 // 8 :] = 1
    with pytest.raises(DataError, match=r"teacher \d has \d+ windows of one class"):
        targets(features_NF, one_class_N, ends(), instants, 0.5, seed=7)
