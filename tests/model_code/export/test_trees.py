"""The form with trees as one ONNX node: contract, parity, thresholds, and the server's opener."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from model_code.errors import ExportError
from model_code.export import trees
from model_code.export.graph import PARITY_BATCHES, PARITY_LIMIT, check_onnx
from model_code.models import network
from model_code.models.blend import Blend
from model_code.models.boosting import Boosting
from model_code.models.summaries import summaries
from model_code.settings import (
    FEATURE_COUNT,
    INPUT_NAME,
    ONNX_ML_OPSET,
    ONNX_OPSET,
    SEQUENCE_LENGTH,
    BlendSpec,
    BoostingSpec,
    MlpSpec,
)
from tests.support.blends import LIMITS, fitted, windows

SPECS = (
    BlendSpec(hidden=8, weight=0.3, trees=LIMITS),
    BlendSpec(hidden=8, members=3, trees=LIMITS),
    BoostingSpec(trees=LIMITS),
    BlendSpec(hidden=8, weight="fitted", trees=LIMITS),
)


@pytest.fixture(scope="module", name="x_BTF")
def made_windows() -> np.ndarray:
    return windows()


def exact(model: Blend | Boosting, x_BTF: np.ndarray) -> np.ndarray:
    """The logits from means whose sums are in FP64: these windows lie on thresholds."""
    ends_B = np.arange(len(x_BTF)) * SEQUENCE_LENGTH + SEQUENCE_LENGTH - 1
    x_BG = torch.from_numpy(summaries(x_BTF.reshape(-1, FEATURE_COUNT), ends_B))
    with torch.inference_mode():
        logits_BC = model.trees.logits(x_BG)
        if isinstance(model, Blend):
            perceptrons_BC = model.mlp.of_summaries(x_BG)
            logits_BC = model.weight * perceptrons_BC + (1.0 - model.weight) * logits_BC
    found_BC: np.ndarray = logits_BC.numpy()
    return found_BC


@pytest.fixture(
    scope="module", params=SPECS, ids=("blend", "blend of three", "boosting", "fitted weight")
)
def model(request: pytest.FixtureRequest, x_BTF: np.ndarray) -> Blend | Boosting:
    return fitted(request.param, x_BTF)


@pytest.fixture(scope="module")
def path(
    model: Blend | Boosting, x_BTF: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("native") / "model.onnx"
    report = trees.export_native(model, x_BTF, path)
    assert report is not None
    assert report.parity_error <= PARITY_LIMIT
    assert report.parity_batches == PARITY_BATCHES
    return path


def test_one_node_holds_all_trees_and_the_contract_is_kept(path: Path) -> None:
    assert check_onnx(path) == ONNX_OPSET
    graph = onnx.load(path)
    assert [node.op_type for node in graph.graph.node].count(trees.TREE_NODE) == 1
    assert {item.domain: item.version for item in graph.opset_import} == {
        "": ONNX_OPSET,
        "ai.onnx.ml": ONNX_ML_OPSET,
    }


def test_another_version_of_the_tree_node_is_refused(path: Path, tmp_path: Path) -> None:
    graph = onnx.load(path)
    next(item for item in graph.opset_import if item.domain == "ai.onnx.ml").version = 1
    onnx.save(graph, tmp_path / "old.onnx")
    with pytest.raises(ExportError, match="opset"):
        check_onnx(tmp_path / "old.onnx")


def test_windows_on_and_beside_a_threshold_go_the_networks_way(
    path: Path, model: Blend | Boosting
) -> None:
    threshold_KP = model.trees.threshold_KP
    near = np.unique(threshold_KP[torch.isfinite(threshold_KP)].numpy())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for values in (near, *(np.nextafter(near, np.float32(side)) for side in (-9e9, 9e9))):
        # constant windows: every mean is the value itself
        shape = (len(values), SEQUENCE_LENGTH, FEATURE_COUNT)
        x_BTF = np.broadcast_to(values[:, None, None], shape).astype(np.float32)
        expected_BC = exact(model, x_BTF)
        (found_BC,) = session.run(None, {INPUT_NAME: x_BTF})
        np.testing.assert_allclose(found_BC, expected_BC, PARITY_LIMIT, PARITY_LIMIT)


def test_one_window_may_take_another_branch_than_torch_and_two_may_not(
    model: Blend | Boosting, x_BTF: np.ndarray, tmp_path: Path
) -> None:
    """Torch sums a mean in FP32: windows beside a threshold of a mean, where that shows."""
    threshold_KP = model.trees.threshold_KP
    values = np.unique(threshold_KP[torch.isfinite(threshold_KP)].numpy())
    shape = (len(values), SEQUENCE_LENGTH, FEATURE_COUNT)
    near_BTF = np.broadcast_to(values[:, None, None], shape).astype(np.float32)
    with torch.inference_mode():
        gap_B = np.abs(model(torch.from_numpy(near_BTF)).numpy() - exact(model, near_BTF)).max(1)
    other_BTF = near_BTF[gap_B > PARITY_LIMIT]
    assert len(other_BTF) >= 2
    with torch.inference_mode():
        apart_B = np.abs(model(torch.from_numpy(x_BTF)).numpy() - exact(model, x_BTF)).max(1)
    alike_BTF = x_BTF[apart_B <= PARITY_LIMIT][:40]
    report = trees.export_native(
        model, np.concatenate([alike_BTF, other_BTF[:1]]), tmp_path / "one.onnx"
    )
    assert report is not None
    assert report.parity_error > PARITY_LIMIT
    with pytest.raises(ExportError, match="on 2 windows"):
        trees.export_native(
            model, np.concatenate([alike_BTF, other_BTF[:2]]), tmp_path / "two.onnx"
        )
    assert not (tmp_path / "two.onnx").exists()


def test_the_servers_opener_gives_the_same_logits(
    path: Path, model: Blend | Boosting, x_BTF: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils")
    )
    from infra.triton import backend_model

    buffers = np.zeros_like(x_BTF[:1]), np.zeros((1, 2), np.float32)
    run = backend_model.OPENERS["onnxruntime"](path, {backend_model.SINGLE: "fixed"}, *buffers)
    expected_BC = exact(model, x_BTF)
    np.testing.assert_allclose(run(x_BTF), expected_BC, PARITY_LIMIT, PARITY_LIMIT)
    np.testing.assert_allclose(run(x_BTF[3:4]), expected_BC[3:4], PARITY_LIMIT, PARITY_LIMIT)


def test_a_model_without_trees_has_no_such_form(x_BTF: np.ndarray, tmp_path: Path) -> None:
    for spec in (MlpSpec(hidden=8), BlendSpec(hidden=8)):
        assert trees.export_native(network.build(spec).eval(), x_BTF, tmp_path / "none") is None
    assert not list(tmp_path.iterdir())


def test_a_tree_node_that_differs_from_the_trees_is_refused(
    x_BTF: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trees._attributes
    monkeypatch.setattr(
        trees, "_attributes", lambda *inputs: real(*inputs) | {"base_values": [1.0, 1.0]}
    )
    with pytest.raises(ExportError, match="differs from torch"):
        trees.export_native(fitted(SPECS[2], x_BTF), x_BTF, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
