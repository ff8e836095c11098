"""Small staged versions that a real server loads in no time.

The graph is logits = mean over time of x, times a matrix: real ONNX, real engines' folders.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model_code.artifacts import hash_path
from model_code.engines.onnxruntime_engine import open_graph
from model_code.engines.sidecar import EngineSidecar, TensorSpec
from model_code.models.probability import probability
from model_code.repository.manifest import Approval, Manifest
from model_code.repository.requests import GOLDEN_FILE, REPLAY_FILE, GoldenSet, Replay
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.repository.staging import stage
from model_code.settings import INPUT_NAME, MODEL_NAME, OUTPUT_NAME, Settings

APPROVAL = Approval(
    reviewer="ada", at="2024-08-10T09:00:00+00:00", reason="sound", started_by="bob",
    flow_run_id="f",
)  # fmt: skip
REPLAYED = 64


def windows(count: int = REPLAYED) -> NDArray[np.float32]:
    return np.random.default_rng(9).normal(0.0, 4.0, (count, 64, 16)).astype(np.float32)


def weights(seed: int, noise: float = 0.02) -> NDArray[np.float32]:
    """Nearly the same decisions whatever the seed, but other answers."""
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(1).normal(0.0, 1.0, (16, 2))
    return (common + noise * rng.normal(0.0, 1.0, (16, 2))).astype(np.float32)


def write_graph(path: Path, matrix: NDArray[np.float32]) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", [INPUT_NAME, "time"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "matrix"], [OUTPUT_NAME]),
        ],
        "tiny",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["batch", 64, 16])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "time"),
            numpy_helper.from_array(matrix, "matrix"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)


def engine(
    folder: Path,
    matrix: NDArray[np.float32],
    name: str = "onnxruntime-fp32",
    threads: int = 1,
) -> EngineSidecar:
    folder.mkdir(parents=True)
    write_graph(folder / "model.onnx", matrix)
    sha256 = hash_path(folder / "model.onnx")
    sidecar = EngineSidecar(
        engine=name,
        library=name.split("-", maxsplit=1)[0],
        library_version="1",
        precision="fp32",
        device="a processor",
        file="model.onnx",
        sha256=sha256,
        onnx_sha256=sha256,
        inputs=(TensorSpec(name=INPUT_NAME, dtype="FP32", shape=(64, 16)),),
        outputs=(TensorSpec(name=OUTPUT_NAME, dtype="FP32", shape=(2,)),),
        max_batch=64,
        threads=threads,
        system="Linux x86_64",
        build_seconds=1.0,
        parity_error=0.0,
        flops=32,
    )
    sidecar.save(folder)
    return sidecar


def staged(
    root: Path,
    version: int,
    *,
    name: str = "onnxruntime-fp32",
    matrix: NDArray[np.float32] | None = None,
    expected: NDArray[np.float32] | None = None,
    mlflow_run_id: str = "m",
    **changes: Any,
) -> Path:
    """Stage a version; `expected` is the matrix its golden and stored answers come from."""
    matrix = weights(version) if matrix is None else matrix
    scratch = root.parent / f"built-{version}-{name}"
    sidecar = engine(scratch / "engine", matrix, name)
    requests = scratch / "requests"
    requests.mkdir()
    true = scratch / "true.onnx"
    write_graph(true, matrix if expected is None else expected)
    predictor, x_RTF = open_graph(true, 1), windows()
    logits_RC = predictor.predict(x_RTF)
    GoldenSet(x_RTF[:8], logits_RC[:8], tolerance=1e-3).save(requests / GOLDEN_FILE)
    label_R = (logits_RC[:, 1] > logits_RC[:, 0]).astype(np.int8)
    Replay(x_RTF, probability(logits_RC), label_R).save(requests / REPLAY_FILE)
    facts: dict[str, Any] = {
        "data_sha256": "d" * 64,
        "code_commit": "c" * 40,
        "verdict": "pass",
        "promotable": True,
        "simulated": False,
        "flow_run_id": "f",
        "threshold": 0.5,
    }
    files = {path.name: hash_path(path) for path in requests.iterdir()}
    manifest = Manifest.of(
        sidecar, version=version, files=files, mlflow_run_id=mlflow_run_id, **(facts | changes)
    )
    return stage(root, version, scratch / "engine", sidecar, manifest, requests)


def serves(settings: Settings, version: int | str) -> None:
    """Turn the route of a home to a version; nothing is loaded."""
    route = Route(champion=Target(model=MODEL_NAME, version=int(version)))
    route.save(ServingRepository(settings.serving_repository).route_file)


def logits(version: int) -> NDArray[np.float32]:
    """What version's graph answers to `windows()`."""
    logits_BC: NDArray[np.float32] = windows().mean(axis=1) @ weights(version)
    return logits_BC


class Names:
    """A registry of two names, in memory."""

    def __init__(self) -> None:
        self.champion: int | None = None
        self.previous: int | None = None
        self.broken = False

    def aliases(self) -> tuple[int | None, int | None]:
        return self.champion, self.previous

    def move(self, champion: int | None, previous: int | None) -> None:
        if self.broken:
            raise ConnectionError("the registry is gone")
        self.champion, self.previous = champion, previous
