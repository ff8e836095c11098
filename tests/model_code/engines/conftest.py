"""One small network with realistic weights in every exported form."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_code.engines.protocol import EngineSource
from model_code.export import graph
from model_code.models import network
from model_code.settings import NetworkSpec

SPEC = NetworkSpec(d_model=16, heads=2, layers=2, feed_forward=32, dropout=0.0)
COPIES = 4  # of each feed-forward unit, so that pruning finds units to remove


def draw(seed: int, count: int) -> NDArray[np.float32]:
    """Windows of different levels: of noise alone every answer would be nearly the same."""
    random = np.random.default_rng(seed)
    level = random.normal(0.5, 2.0, (count, 1, 16))
    return (level + random.normal(0.0, 1.0, (count, 64, 16))).astype(np.float32)


@pytest.fixture(scope="session")
def model() -> network.FinancialPredictor:
    torch.manual_seed(3)
    model = network.FinancialPredictor(SPEC).eval()
    x_BTF = draw(3, 256)
    model.fit_standardisation(x_BTF.reshape(-1, 16))
    with torch.no_grad():
        for parameter in model.parameters():  # equal initial weights would be merged
            parameter.add_(0.05 * torch.randn_like(parameter))
        for layer in model.encoder.layers:
            units = SPEC.feed_forward // COPIES
            layer.linear1.weight.copy_(layer.linear1.weight[:units].repeat(COPIES, 1))
            layer.linear1.bias.copy_(layer.linear1.bias[:units].repeat(COPIES))
        # margins of 1 around 0: both classes, and probabilities that differ
        x, sign = torch.from_numpy(x_BTF), torch.tensor([-1.0, 1.0])
        model.head.weight.div_((model(x) @ sign).std())
        model.head.bias[0] += (model(x) @ sign).median()
    return model


@pytest.fixture(scope="session")
def source(
    model: network.FinancialPredictor, tmp_path_factory: pytest.TempPathFactory
) -> EngineSource:
    folder = tmp_path_factory.mktemp("source")
    calibration = draw(5, 64)
    network.save(model, folder / "model.pt")
    np.save(folder / "calibration.npy", calibration)
    graph.export_onnx(model, calibration, folder / "model.onnx")
    graph.export_torchscript(model, calibration, folder / "model.ts")
    return EngineSource(
        folder / "model.pt", folder / "model.onnx", folder / "model.ts", folder / "calibration.npy"
    )


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """The engine cache is a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TICKLINE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", name="x_BTF")
def windows() -> NDArray[np.float32]:
    return draw(4, 8)


@pytest.fixture(scope="session", name="x_NTF")
def many_windows() -> NDArray[np.float32]:
    return draw(7, 512)


@pytest.fixture(scope="session", name="expected_BC")
def logits(model: network.FinancialPredictor, x_BTF: NDArray[np.float32]):
    with torch.inference_mode():
        return model(torch.from_numpy(x_BTF)).numpy()
