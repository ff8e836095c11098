"""Every engine of this machine on every kind of network but the design's."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from model_code.artifacts import hash_path
from model_code.engines.protocol import EngineSource
from model_code.engines.registry import ENGINES, unsuitable
from model_code.errors import EngineError, EngineUnavailableError
from model_code.export.graph import export_onnx, export_torchscript
from model_code.export.trees import TREE_NODE, export_native
from model_code.models import network
from model_code.models.boosting import Boosting
from model_code.models.predictor import WindowModel
from model_code.settings import (
    FEATURE_COUNT,
    SEQUENCE_LENGTH,
    AnyNetworkSpec,
    BlendSpec,
    BoostingSpec,
    ConvTransformer2Spec,
    MlpSpec,
    NetworkSpec,
)

SPECS = (
    MlpSpec(hidden=24, layers=2),
    BlendSpec(hidden=24, layers=2),
    BlendSpec(hidden=24, layers=2, members=3),
    BoostingSpec(),
    ConvTransformer2Spec(d_model=16, heads=2, layers=1, feed_forward=32),
)
IDS = ("mlp", "blend", "blend of three", "boosting", "transformer-2")
NO_PRUNING = "has no feed-forward layers|its feed-forward layers are narrow"
WINDOWS = 400
PRUNED = ("onnxruntime-pruned", "openvino-pruned", "openvino-pruned-bf16")
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.1}  # of a logit
MAY_BE_REFUSED = ("openvino-bf16", "openvino-int8")
HERE = [name for name, engine in ENGINES.items() if engine.availability() is None]


@pytest.fixture(scope="module", name="x_BTF")
def windows() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(1.0, 2.0, (WINDOWS, SEQUENCE_LENGTH, FEATURE_COUNT)).astype(np.float32)


@pytest.fixture(scope="module", params=SPECS, ids=IDS)
def model(request: pytest.FixtureRequest, x_BTF: np.ndarray) -> WindowModel:
    torch.manual_seed(5)
    made = network.build(request.param)
    rows_NF = x_BTF.reshape(-1, FEATURE_COUNT)
    ends_B = np.arange(WINDOWS) * SEQUENCE_LENGTH + SEQUENCE_LENGTH - 1
    label_N = (rows_NF[:, 0] > 1.0).astype(np.int8)
    made.fit_standardisation(rows_NF)
    made.fit_windows(rows_NF, ends_B)
    made.finish(rows_NF, label_N, ends_B[:300], ends_B[300:], seed=1)
    return made.eval()


@pytest.fixture(scope="module")
def source(
    model: WindowModel, x_BTF: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> EngineSource:
    folder = tmp_path_factory.mktemp("source")
    network.save(model, folder / "model.pt")
    export_torchscript(model, x_BTF, folder / "model.ts")
    export_onnx(model, x_BTF, folder / "model.onnx")
    native = export_native(model, x_BTF, folder / "trees.onnx")
    np.save(folder / "calibration.npy", x_BTF)
    return EngineSource(
        folder / "model.pt",
        folder / "model.onnx",
        folder / "model.ts",
        folder / "calibration.npy",
        folder / "trees.onnx" if native else None,
    )


@pytest.mark.parametrize("name", [n for n in HERE if n not in (*PRUNED, "torch-compile")])
def test_every_engine_of_this_machine_answers_as_the_network(
    name: str, source: EngineSource, model: WindowModel, x_BTF: np.ndarray, tmp_path: Path
) -> None:
    engine = ENGINES[name]
    if unsuitable(name, model.spec):
        assert isinstance(model, Boosting)
        return
    try:
        sidecar = engine.build(source, tmp_path)
    except EngineError as error:
        # some processors compute layers this small in another precision, which is refused
        if name not in MAY_BE_REFUSED or "matrix products" not in error.what:
            raise
        return
    assert sidecar.flops == network.flops_per_window(model.spec)
    assert sidecar.onnx_sha256 == hash_path(source.onnx), "what is registered"
    native = name == "onnxruntime-fp32" and source.onnx_trees is not None
    assert sidecar.recipe.get("trees") == (TREE_NODE if native else None)
    if native and source.onnx_trees:
        assert sidecar.sha256 == hash_path(source.onnx_trees)
    with torch.inference_mode():
        expected_BC = model(torch.from_numpy(x_BTF)).numpy()
    found_BC = engine.load(tmp_path).predict(x_BTF)
    error_B = np.abs(found_BC - expected_BC).max(axis=1)
    # a sum rounded otherwise may take the other branch of a tree: rarely
    assert np.mean(error_B > TOLERANCE[sidecar.precision]) <= 0.02
    assert error_B.max() < 1.0


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_engines_that_prune_are_unsuitable_and_those_of_low_precision_for_trees_alone(
    spec: AnyNetworkSpec,
) -> None:
    low = [name for name, engine in ENGINES.items() if engine.precision != "fp32"]
    refused = {*PRUNED, "tensorrt-sparse"} | set(low if spec.KIND == "boosting" else ())
    assert {name for name in ENGINES if unsuitable(name, spec)} == refused
    assert not any(unsuitable(name, NetworkSpec()) for name in ENGINES)
    reason = str(unsuitable(PRUNED[0], spec))
    assert f"kind {spec.KIND} " in reason
    assert re.search(NO_PRUNING, reason)


@pytest.mark.parametrize("name", [name for name in PRUNED if name in HERE])
def test_a_pruned_engine_says_that_there_is_nothing_to_prune(
    name: str, source: EngineSource, tmp_path: Path
) -> None:
    with pytest.raises(EngineUnavailableError, match=NO_PRUNING):
        ENGINES[name].build(source, tmp_path)
