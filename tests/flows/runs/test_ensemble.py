"""What `make_ensemble` refuses, before a server starts and after it disagrees."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.runs.ensemble import make_ensemble
from model_code.errors import ConfigError, EngineError, ExportError
from model_code.models import network
from model_code.settings import MODEL_NAME, MlpSpec, Settings
from tests.support.blends import BlendRepository, register, stage_blend


@pytest.fixture
def settings(tmp_path: Path, mlflow_template: Path) -> Settings:
    settings = Settings(home=tmp_path / "home").resolved()
    settings.home.mkdir()
    shutil.copyfile(mlflow_template, settings.home / "mlflow.db")
    return settings


def test_a_version_that_is_no_blend_is_refused(
    settings: Settings, blend_repository: BlendRepository, tmp_path: Path
) -> None:
    run_id = register(settings, network.build(MlpSpec(hidden=8)))
    stage_blend(settings, blend_repository, 1, run_id)
    with pytest.raises(EngineError, match="kind mlp has no parts"):
        make_ensemble(settings, tmp_path / "out", None, None)
    assert not (tmp_path / "out").exists()


def test_a_version_without_weights_in_the_registry_is_refused(
    settings: Settings, blend_repository: BlendRepository, tmp_path: Path
) -> None:
    stage_blend(settings, blend_repository, 1, "m")
    with pytest.raises(ConfigError, match="weights of version 1 are not in the registry"):
        make_ensemble(settings, tmp_path / "out", 1, None)


def test_an_ensemble_that_disagrees_leaves_no_folder(
    settings: Settings,
    blend_repository: BlendRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def disagree(_: Settings, repository: Path, *rest: Any, known: Any) -> None:
        assert (repository / MODEL_NAME / "1" / "model.onnx").is_file()
        assert len(known.x_NTF) == 8, "the golden requests of the version"
        raise ExportError("the logits differ")

    monkeypatch.setattr("infra.triton.ensemble.compare_with_single", disagree)
    run_id = register(settings, blend_repository.model)
    stage_blend(settings, blend_repository, 1, run_id)
    with pytest.raises(ExportError, match="the logits differ"):
        make_ensemble(settings, tmp_path / "out", None, None)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
