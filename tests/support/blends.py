"""Small fitted blends and boosting: in memory, as model repositories, registered and staged."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from mlflow.exceptions import MlflowException

from model_code.artifacts import hash_path
from model_code.engines.onnxruntime_engine import open_graph
from model_code.engines.sidecar import EngineSidecar
from model_code.export.parts import Part, parts
from model_code.models import network
from model_code.models.blend import Blend
from model_code.models.boosting import Boosting
from model_code.models.predictor import WindowModel
from model_code.models.probability import probability
from model_code.repository.ensemble import write_ensemble, write_single
from model_code.repository.manifest import Manifest
from model_code.repository.requests import GOLDEN_FILE, REPLAY_FILE, GoldenSet, Replay
from model_code.repository.staging import stage
from model_code.settings import (
    FEATURE_COUNT,
    MODEL_NAME,
    SEQUENCE_LENGTH,
    BlendSpec,
    BoostingSpec,
    Settings,
    TreesSpec,
)
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import WEIGHTS_FILE, WEIGHTS_FOLDER

LIMITS = TreesSpec(max_iter=12, max_leaf_nodes=9)
WINDOWS = 300
VERSION = 3  # of the shared repository


def windows() -> np.ndarray:
    """(300, 64, 16), in steps of a tenth: many lie on the trees' thresholds."""
    rng = np.random.default_rng(3)
    x_BTF = rng.integers(-20, 20, (WINDOWS, SEQUENCE_LENGTH, FEATURE_COUNT)) / 10
    return x_BTF.astype(np.float32)


def fitted(spec: BlendSpec | BoostingSpec, x_BTF: np.ndarray) -> Blend | Boosting:
    """The model with fitted trees, in evaluation mode; perceptrons keep their first weights."""
    torch.manual_seed(5)
    made = network.build(spec)
    assert isinstance(made, Blend | Boosting)
    rows_NF = x_BTF.reshape(-1, FEATURE_COUNT)
    ends_B = np.arange(len(x_BTF)) * SEQUENCE_LENGTH + SEQUENCE_LENGTH - 1
    label_N = (rows_NF[:, 0] + rows_NF[:, 3] > 0).astype(np.int8)
    made.fit_windows(rows_NF, ends_B)
    made.finish(rows_NF, label_N, ends_B[:240], ends_B[240:], seed=1)
    return made.eval()


@dataclass(frozen=True)
class BlendRepository:
    """A model repository with an ensemble and the single graph, both of version `VERSION`.

    Attributes:
        root: to be read only; the session shares it.
        model: a blend of two perceptrons, weight 0.3, and trees.
        split: its parts.
    """

    root: Path
    model: Blend
    split: tuple[Part, ...]

    @classmethod
    def make(cls, root: Path) -> Self:
        """Fit, export and write it."""
        x_BTF = windows()
        model = fitted(BlendSpec(hidden=8, members=2, weight=0.3, trees=LIMITS), x_BTF)
        assert isinstance(model, Blend)
        split = parts(model)
        write_ensemble(root, VERSION, split, x_BTF[:64])
        write_single(root, VERSION, model, x_BTF[:64])
        return cls(root, model, split)


def register(settings: Settings, model: WindowModel) -> str:
    """Register a version with its weights, as a nightly does; the id of its run."""
    mlflow = mlflow_runs.client(settings)
    experiment = mlflow_runs.experiment_id(mlflow, settings)
    run_id = str(mlflow.create_run(experiment, run_name="night").info.run_id)
    path = settings.home / WEIGHTS_FILE
    network.save(model, path)
    mlflow.log_artifact(run_id, str(path), WEIGHTS_FOLDER)
    with suppress(MlflowException):  # there is an earlier version
        mlflow.create_registered_model(MODEL_NAME)
    mlflow.create_model_version(MODEL_NAME, source="file:///nowhere", run_id=run_id)
    return run_id


def stage_blend(settings: Settings, made: BlendRepository, version: int, run_id: str) -> Path:
    """Stage the single graph with golden and recorded requests, as a nightly does."""
    engine = made.root / MODEL_NAME / str(VERSION)
    predictor, x_RTF = open_graph(engine / "model.onnx", 1), windows()[:32]
    logits_RC = predictor.predict(x_RTF)
    requests = settings.home / f"requests-{version}"
    requests.mkdir()
    GoldenSet(x_RTF[:8], logits_RC[:8], tolerance=1e-3).save(requests / GOLDEN_FILE)
    label_R = (logits_RC[:, 1] > logits_RC[:, 0]).astype(np.int8)
    Replay(x_RTF, probability(logits_RC), label_R).save(requests / REPLAY_FILE)
    sidecar = EngineSidecar.load(engine)
    manifest = Manifest.of(
        sidecar,
        version=version,
        data_sha256="d" * 64,
        code_commit="c" * 40,
        verdict="pass",
        promotable=True,
        simulated=False,
        mlflow_run_id=run_id,
        flow_run_id="f",
        threshold=0.5,
        files={path.name: hash_path(path) for path in requests.iterdir()},
    )
    return stage(settings.staging_repository, version, engine, sidecar, manifest, requests)
