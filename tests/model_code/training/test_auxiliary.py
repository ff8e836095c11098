"""Auxiliary labels: of training only, never across the validation windows, gone from the export."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from model_code.errors import ConfigError
from model_code.export.graph import export_onnx
from model_code.features.dataset import FeatureTable, TableDay, TableMeta
from model_code.features.labels import mid_move, round_trip
from model_code.features.windows import gather
from model_code.models import network
from model_code.models.network import state_digest
from model_code.settings import (
    AnyNetworkSpec,
    BlendSpec,
    ConvTransformer2Spec,
    FeatureSpec,
    MlpSpec,
    NetworkSpec,
    TrainingSpec,
    TreesSpec,
)
from model_code.training.auxiliary import (
    WEIGHT,
    AuxiliaryHeads,
    auxiliary_labels,
    auxiliary_loss,
)
from model_code.training.loop import train
from model_code.training.result import TrainingResult

MS = 1_000_000
ROWS = 500
HORIZONS = (40.0, 900.0)
TRAIN, VALIDATION = np.arange(63, 385), np.arange(460, 500)
SPEC = TrainingSpec(
    epochs=2, windows_per_epoch=96, batch_size=32, patience=9, mirror=False, auxiliary=HORIZONS
)
PLAIN = SPEC.model_copy(update={"auxiliary": ()})
MLP = MlpSpec(hidden=8, layers=1)
KINDS: tuple[AnyNetworkSpec, ...] = (
    MLP,
    BlendSpec(hidden=8, layers=1, members=2, trees=TreesSpec(max_iter=5)),
    NetworkSpec(d_model=8, heads=2, layers=1, feed_forward=8),
    ConvTransformer2Spec(d_model=8, heads=2, layers=1, feed_forward=8),
)


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    """Two instruments one after the other, a row every 20 ms, the second one offset by 7 ms."""
    rng = np.random.default_rng(6)
    mid_N = 100.0 + np.cumsum(rng.choice([-0.01, 0.0, 0.01], 2 * ROWS))
    label_N = rng.integers(0, 2, 2 * ROWS).astype(np.int8)
    features_NF = rng.normal(size=(2 * ROWS, 16)).astype(np.float32)
    features_NF[:, 0] += label_N
    time = 10**18 + np.arange(ROWS) * 20 * MS
    day = dt.date(2001, 9, 9)
    meta = TableMeta(
        symbols=("A", "B"),
        dates=(day,),
        days=(
            TableDay(date=day, symbol="A", first=0, rows=ROWS),
            TableDay(date=day, symbol="B", first=ROWS, rows=ROWS),
        ),
        spec=FeatureSpec(),
        features_version="0",
        simulated=True,
    )
    return FeatureTable(
        features_NF=features_NF,
        timestamp_N=np.concatenate([time, time + 7 * MS]),
        label_N=label_N,
        segment_N=np.repeat(np.array([0, 1], np.int32), ROWS),
        symbol_N=np.repeat(np.array([0, 1], np.int16), ROWS),
        spread_bps_N=np.zeros(2 * ROWS, np.float32),
        bid_N=mid_N - 0.005,
        ask_N=mid_N + 0.005,
        meta=meta,
    )


def changed(table: FeatureTable, **meta: Any) -> FeatureTable:
    held = {name: getattr(table, name) for name in table.__dataclass_fields__}
    return FeatureTable(**held | {"meta": table.meta.model_copy(update=meta)})


def labels_of(table: FeatureTable, horizons: tuple[float, ...] = HORIZONS) -> NDArray[np.int8]:
    found = auxiliary_labels(table, horizons, TRAIN, VALIDATION)
    assert found is not None
    return found


def test_labels_follow_the_rule_at_their_own_horizon_and_only_where_a_window_is_trained(
    table: FeatureTable,
) -> None:
    rising = changed(table, spec=FeatureSpec(label="mid-move"))
    ends = np.concatenate([TRAIN, ROWS + TRAIN])
    for given, rule in ((table, round_trip), (rising, mid_move)):
        found = auxiliary_labels(given, HORIZONS, ends, VALIDATION)
        assert found is not None
        assert found.shape == (2 * ROWS, 2)
        for day in table.meta.days:
            rows = slice(day.first, day.first + day.rows)
            expected_N = rule(
                table.timestamp_N[rows], table.bid_N[rows], table.ask_N[rows], HORIZONS[0], 0.0
            )
            np.testing.assert_array_equal(found[rows][TRAIN, 0], expected_N[TRAIN])
        assert {*np.unique(found[ends])} == {-1, 0, 1}
        assert (np.delete(found, ends, axis=0) == -1).all()
    assert auxiliary_labels(table, (), TRAIN, VALIDATION) is None


def test_no_auxiliary_label_depends_on_a_quote_of_the_validation_windows(
    table: FeatureTable,
) -> None:
    """Whatever the quotes from the first validation row on, the labels are the same."""
    first = VALIDATION[0] - 63
    moved = {name: getattr(table, name).copy() for name in ("bid_N", "ask_N")}
    for column in moved.values():
        column[first:ROWS] += 50.0
    held = {name: getattr(table, name) for name in table.__dataclass_fields__}
    np.testing.assert_array_equal(labels_of(FeatureTable(**held | moved)), labels_of(table))
    hidden_B = labels_of(table)[TRAIN, 1] < 0
    reach_B = table.timestamp_N[TRAIN] + 900 * MS >= table.timestamp_N[first]
    np.testing.assert_array_equal(hidden_B, reach_B)
    assert 0 < reach_B.sum() < len(TRAIN)


def test_the_loss_is_the_mean_over_observed_labels_of_every_head() -> None:
    logits = [torch.tensor([[0.3, 9.0], [-1.0, 0.0]]), torch.tensor([[0.1, -9.0], [2.0, 1.0]])]
    label_BA = torch.tensor([[1, -1], [0, 1]], dtype=torch.int8)

    def nats(logit: float, label: int) -> float:
        return float(np.log1p(np.exp(-logit if label else logit)))

    first = np.mean([nats(0.3, 1), nats(-1.0, 0), nats(0.1, 1), nats(2.0, 0)])
    second = np.mean([nats(0.0, 1), nats(1.0, 1)])
    expected = WEIGHT * (first + second) / 2
    assert float(auxiliary_loss(logits, label_BA)) == pytest.approx(expected, rel=1e-5)
    unknown = torch.full_like(label_BA, -1)
    assert float(auxiliary_loss(logits, unknown)) == 0.0


def fitted(
    table: FeatureTable, folder: Path, spec: TrainingSpec, kind: AnyNetworkSpec, **options: Any
) -> TrainingResult:
    return train(
        table.features_NF,
        table.label_N,
        TRAIN,
        VALIDATION,
        network_spec=kind,
        training_spec=spec,
        checkpoints=folder,
        **{"auxiliary_NA": labels_of(table) if spec.auxiliary else None, **options},
    )


class KilledError(Exception):
    pass


@pytest.mark.parametrize("kind", [MLP, KINDS[3]], ids=lambda kind: kind.KIND)
def test_it_changes_the_weights_resumes_bit_identically_and_leaves_nothing_in_the_export(
    table: FeatureTable, tmp_path: Path, kind: AnyNetworkSpec
) -> None:
    result = fitted(table, tmp_path / "straight", SPEC, kind)
    plain = fitted(table, tmp_path / "plain", PLAIN, kind)
    assert state_digest(result.model.state_dict()) != state_digest(plain.model.state_dict())

    def stop(_: object) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        fitted(table, tmp_path / "killed", SPEC, kind, on_epoch=stop)
    resumed = fitted(table, tmp_path / "killed", SPEC, kind)
    assert resumed.resumed_from == 1
    assert state_digest(resumed.model.state_dict()) == state_digest(result.model.state_dict())

    states = [
        torch.load(path, weights_only=True)["auxiliary"]
        for path in sorted((tmp_path / "killed").glob("epoch-*.pt"))
    ]
    extra = [tensor.numpy().tobytes() for state in states for tensor in state.values()]
    assert len(extra) == 2 * 2 * len(result.model.heads()), "they are needed to resume"
    assert result.model.state_dict().keys() == plain.model.state_dict().keys()
    assert not any(part._forward_pre_hooks for part in result.model.modules())
    if isinstance(kind, MlpSpec):
        windows_BTF = gather(table.features_NF, VALIDATION[:4])
        for name, made in (("with", result), ("without", plain)):
            export_onnx(made.model, windows_BTF, tmp_path / f"{name}.onnx")
        written = (tmp_path / "with.onnx").read_bytes()
        assert not any(weights in written for weights in extra)
        assert shapes(tmp_path / "with.onnx") == shapes(tmp_path / "without.onnx")


def shapes(path: Path) -> list[tuple[int, ...]]:
    """Of every stored tensor."""
    return [tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_every_head_has_its_logits_and_the_networks_own_are_unchanged(
    kind: AnyNetworkSpec,
) -> None:
    torch.manual_seed(1)
    model = network.build(kind)
    heads = AuxiliaryHeads(model, 3).eval()
    x_BTF = torch.randn(5, 64, 16)
    with torch.inference_mode():
        logits, others = heads(x_BTF)
        torch.testing.assert_close(logits, model.eval()(x_BTF))
    assert len(others) == len(model.heads()) > 0
    assert all(found.shape == (5, 3) for found in others)


def test_bad_input_is_refused(table: FeatureTable, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the labels at its horizons"):
        fitted(table, tmp_path, SPEC, MLP, auxiliary_NA=None)
    crossing = changed(table, spec=FeatureSpec(label="cross-venue"))
    with pytest.raises(ConfigError, match="found cross-venue"):
        labels_of(crossing)
    with pytest.raises(ConfigError, match="found the source's own"):
        labels_of(changed(table, given_labels=3))


def test_checkpoints_of_other_auxiliary_labels_are_not_resumed_from(
    table: FeatureTable, tmp_path: Path
) -> None:
    fitted(table, tmp_path, SPEC, MLP)
    other = labels_of(table, (40.0, 100.0))
    assert fitted(table, tmp_path, SPEC, MLP, auxiliary_NA=other).resumed_from is None
