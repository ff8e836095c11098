"""One real server for the clients' tests: versions 1 and 2 of a small model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.triton.engine import add_version
from infra.triton.server import TritonServer, running
from model_code.settings import MODEL_NAME, Settings
from tests.support import serving as builders_serving


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory, triton_home: Path) -> Iterator[TritonServer]:
    root = tmp_path_factory.mktemp("serving")
    for version in (1, 2):
        folder = root / f"engine-{version}"
        sidecar = builders_serving.engine(folder, builders_serving.weights(version))
        add_version(root / "repository", version, folder, sidecar)
    settings = Settings(home=root / "home", triton=triton_home)
    with running(settings, root / "repository", models=(MODEL_NAME,)) as server:
        yield server


@pytest.fixture(scope="session")
def url(triton: TritonServer) -> str:
    return triton.grpc_url


@pytest.fixture(scope="session", name="x_NTF")
def windows() -> NDArray[np.float32]:
    return builders_serving.windows()


@pytest.fixture(scope="session")
def expected() -> dict[int, NDArray[np.float32]]:
    return {version: builders_serving.logits(version) for version in (1, 2)}
