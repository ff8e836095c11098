from pathlib import Path

import pytest
import yaml

from infra.triton.image import IMAGE, TENSORRT, require_compatible
from model_code.errors import EngineUnavailableError
from tests.support.sidecar import sidecar

COMPOSE = Path(__file__).resolve().parents[3] / "infra" / "compose.yaml"


def test_the_containers_use_the_recorded_image() -> None:
    assert yaml.safe_load(COMPOSE.read_text())["services"]["triton"]["image"] == IMAGE


@pytest.mark.parametrize("version", [TENSORRT, f"{TENSORRT}.post1"])
def test_a_plan_of_the_images_tensorrt_fits(version: str) -> None:
    require_compatible(sidecar("tensorrt-fp16", version))


@pytest.mark.parametrize("version", ["10.13.3.8", "10.14.1.48", "11.0.0.1"])
def test_a_plan_of_another_tensorrt_is_refused(version: str) -> None:
    with pytest.raises(EngineUnavailableError, match=f"tensorrt {version}.*{TENSORRT}"):
        require_compatible(sidecar("tensorrt-fp16", version))


def test_an_engine_without_a_plan_fits_any_image() -> None:
    require_compatible(sidecar("onnxruntime-fp32", "1.0"))
