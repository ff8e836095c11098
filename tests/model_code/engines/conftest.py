"""One small trained-looking network in every exported form."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_code.engines.protocol import EngineSource
from model_code.models import network
from model_code.settings import INPUT_NAME, OUTPUT_NAME, NetworkSpec

SPEC = NetworkSpec(d_model=16, heads=2, layers=2, feed_forward=32, dropout=0.0)


@pytest.fixture(scope="session")
def model() -> network.FinancialPredictor:
    torch.manual_seed(3)
    model = network.FinancialPredictor(SPEC).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # equal initial weights would be merged
            parameter.add_(0.05 * torch.randn_like(parameter))
    rows = np.random.default_rng(3).normal(0.5, 2.0, (1000, 16)).astype(np.float32)
    model.fit_standardisation(rows)
    return model


@pytest.fixture(scope="session")
def source(model: network.FinancialPredictor, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("source")
    network.save(model, folder / "model.pt")
    export_onnx(model, folder / "model.onnx")
    calibration = np.random.default_rng(5).normal(0.5, 2.0, (64, 64, 16)).astype(np.float32)
    np.save(folder / "calibration.npy", calibration)
    return EngineSource(
        folder / "model.pt", folder / "model.onnx", folder / "model.ts", folder / "calibration.npy"
    )


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """What engines keep between builds lies in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TICKLINE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", name="x_BTF")
def windows() -> NDArray[np.float32]:
    return np.random.default_rng(4).normal(0.5, 2.0, (8, 64, 16)).astype(np.float32)


@pytest.fixture(scope="session", name="expected_BC")
def logits(model: network.FinancialPredictor, x_BTF: NDArray[np.float32]):
    with torch.inference_mode():
        return model(torch.from_numpy(x_BTF)).numpy()


def export_onnx(model: network.FinancialPredictor, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.randn(2, 64, 16),),
            path,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamo=True,
            opset_version=18,
            external_data=False,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
        )
