from pathlib import Path

import pytest
import yaml

from infra.triton.image import IMAGE, TENSORRT, require_compatible
from model_code.engines.sidecar import EngineSidecar, PlanFacts
from model_code.errors import EngineUnavailableError

COMPOSE = Path(__file__).resolve().parents[3] / "infra" / "compose.yaml"
PLAN = PlanFacts.model_construct()


def sidecar(version: str, plan: PlanFacts | None) -> EngineSidecar:
    """Only what the check looks at."""
    library = "tensorrt" if plan else "onnxruntime"
    return EngineSidecar.model_construct(
        library=library, library_version=version, file="model.plan", plan=plan
    )


def test_the_containers_are_run_with_the_recorded_image() -> None:
    assert yaml.safe_load(COMPOSE.read_text())["services"]["triton"]["image"] == IMAGE


@pytest.mark.parametrize("version", [TENSORRT, f"{TENSORRT}.post1"])
def test_a_plan_of_the_images_tensorrt_fits(version: str) -> None:
    require_compatible(sidecar(version, PLAN))


@pytest.mark.parametrize("version", ["10.13.3.8", "10.14.1.48", "11.0.0.1"])
def test_a_plan_of_another_tensorrt_is_refused(version: str) -> None:
    with pytest.raises(EngineUnavailableError, match=f"tensorrt {version}.*{TENSORRT}"):
        require_compatible(sidecar(version, PLAN))


def test_an_engine_without_a_plan_fits_any_image() -> None:
    require_compatible(sidecar("1.0", None))
