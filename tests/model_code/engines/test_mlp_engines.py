"""Every engine of this machine on the multi-layer perceptron."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model_code.engines.protocol import EngineSource
from model_code.engines.registry import ENGINES, unsuitable
from model_code.errors import EngineUnavailableError
from model_code.export.graph import export_onnx, export_torchscript
from model_code.models import network
from model_code.models.mlp import SummaryMlp, mlp_flops
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH, MlpSpec, NetworkSpec

SPEC = MlpSpec(hidden=24, layers=2)
PRUNED = ("onnxruntime-pruned", "openvino-pruned", "openvino-pruned-bf16")
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.1}  # of a logit


@pytest.fixture(scope="module", name="x_BTF")
def windows() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(1.0, 2.0, (96, SEQUENCE_LENGTH, FEATURE_COUNT)).astype(np.float32)


@pytest.fixture(scope="module")
def model(x_BTF: np.ndarray) -> SummaryMlp:
    torch.manual_seed(5)
    made = SummaryMlp(SPEC)
    ends_B = np.arange(len(x_BTF)) * SEQUENCE_LENGTH + SEQUENCE_LENGTH - 1
    made.fit_windows(x_BTF.reshape(-1, FEATURE_COUNT), ends_B)
    return made.eval()


@pytest.fixture(scope="module")
def source(
    model: SummaryMlp, x_BTF: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> EngineSource:
    folder = tmp_path_factory.mktemp("mlp")
    network.save(model, folder / "model.pt")
    export_torchscript(model, x_BTF, folder / "model.ts")
    export_onnx(model, x_BTF, folder / "model.onnx")
    np.save(folder / "calibration.npy", x_BTF)
    return EngineSource(
        folder / "model.pt", folder / "model.onnx", folder / "model.ts", folder / "calibration.npy"
    )


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, engine in ENGINES.items()
        if name not in (*PRUNED, "torch-compile") and engine.availability() is None
    ],
)
def test_every_engine_of_this_machine_answers_as_the_network(
    name: str, source: EngineSource, model: SummaryMlp, x_BTF: np.ndarray, tmp_path: Path
) -> None:
    engine = ENGINES[name]
    sidecar = engine.build(source, tmp_path)
    assert sidecar.flops == mlp_flops(SPEC)
    with torch.inference_mode():
        expected_BC = model(torch.from_numpy(x_BTF)).numpy()
    found_BC = engine.load(tmp_path).predict(x_BTF)
    np.testing.assert_allclose(found_BC, expected_BC, atol=TOLERANCE[sidecar.precision])


def test_only_engines_that_prune_are_unsuitable_and_only_for_the_perceptron() -> None:
    assert [name for name in ENGINES if unsuitable(name, SPEC)] == [*PRUNED, "tensorrt-sparse"]
    assert not any(unsuitable(name, NetworkSpec()) for name in ENGINES)
    assert "kind mlp has no feed-forward layers" in str(unsuitable(PRUNED[0], SPEC))


@pytest.mark.parametrize("name", PRUNED)
def test_a_pruned_engine_says_that_there_is_nothing_to_prune(
    name: str, source: EngineSource, tmp_path: Path
) -> None:
    engine = ENGINES[name]
    if reason := engine.availability():
        pytest.skip(reason)
    with pytest.raises(EngineUnavailableError, match="kind mlp has no feed-forward layers"):
        engine.build(source, tmp_path)
