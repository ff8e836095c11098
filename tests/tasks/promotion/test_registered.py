import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from model_code.artifacts import hash_path
from model_code.errors import IntegrityError, PromotionError
from model_code.repository.manifest import CONFIG_FILE, MANIFEST_FILE, Manifest
from model_code.repository.requests import GOLDEN_FILE, GoldenSet
from model_code.settings import MODEL_NAME, ServingSpec, Settings
from tasks.promotion.registered import BENCHMARK, require_registered
from tasks.runs.version_tags import STAGED_TAG
from tests.support.promotion import registered
from tests.support.serving import staged, weights


@pytest.fixture
def settings(tmp_path: Path, mlflow_template: Path) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    found = Settings(home=home).resolved()
    registered(found, 1)
    return found


def candidate(settings: Settings) -> Path:
    return settings.staging_repository / MODEL_NAME / "1"


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    Manifest.load(folder)  # the forged folder fits its own manifest


def other_engine(folder: Path) -> None:
    run_id = Manifest.load(folder).mlflow_run_id
    shutil.rmtree(folder)
    made = staged(
        folder.parents[2] / "other" / "staging", 1, matrix=-weights(1), mlflow_run_id=run_id,
        verdict="no baseline",
    )  # fmt: skip
    shutil.copytree(made, folder)


def other_golden_requests(folder: Path) -> None:
    known = GoldenSet.load(folder / GOLDEN_FILE)
    GoldenSet(known.x_NTF, known.logits_NC, tolerance=1e3).save(folder / GOLDEN_FILE)
    files = json.loads((folder / MANIFEST_FILE).read_text())["files"]
    rewrite(folder, files=files | {GOLDEN_FILE: hash_path(folder / GOLDEN_FILE)})


def other_configuration(folder: Path) -> None:
    path = folder / CONFIG_FILE
    path.write_text(path.read_text() + f"# {ServingSpec().instances} instances\n")
    rewrite(folder, config_sha256=hash_path(path))


@pytest.mark.parametrize(
    ("forge", "named"),
    [
        (other_engine, "onnx_sha256"),
        (other_golden_requests, "manifest, configuration or recorded requests"),
        (other_configuration, "manifest, configuration or recorded requests"),
        (lambda folder: rewrite(folder, verdict="pass"), "verdict"),
        (lambda folder: rewrite(folder, promotable=False), "promotable"),
        (lambda folder: rewrite(folder, simulated=True), "simulated"),
        (lambda folder: rewrite(folder, mlflow_run_id="another"), "staged_by"),
        (lambda folder: rewrite(folder, flow_run_id="another"), "manifest"),
        (lambda folder: rewrite(folder, threshold=0.25), "threshold"),
        (lambda folder: rewrite(folder, code_commit="d" * 40), "manifest"),
    ],
)
def test_a_folder_that_was_forged_consistently_is_refused(
    settings: Settings, forge: Callable[[Path], None], named: str
) -> None:
    require_registered(settings, candidate(settings))
    forge(candidate(settings))
    with pytest.raises(IntegrityError, match=named):
        require_registered(settings, candidate(settings))


def test_the_measured_engine_must_be_the_staged_one(settings: Settings) -> None:
    mlflow = MlflowClient(settings.tracking_uri)
    run_id = Manifest.load(candidate(settings)).mlflow_run_id
    path = Path(mlflow.download_artifacts(run_id, BENCHMARK))
    result = json.loads(path.read_text())
    for row in result["rows"]:
        row["facts"]["sha256"] = "0" * 64
    mlflow.log_text(run_id, json.dumps(result), BENCHMARK)
    with pytest.raises(IntegrityError, match="measured engine"):
        require_registered(settings, candidate(settings))


def test_a_night_that_did_not_record_what_it_staged_is_refused(settings: Settings) -> None:
    MlflowClient(settings.tracking_uri).delete_model_version_tag(MODEL_NAME, "1", STAGED_TAG)
    with pytest.raises(PromotionError, match="does not say what was staged as version 1"):
        require_registered(settings, candidate(settings))
