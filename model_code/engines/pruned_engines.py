"""The network with fewer feed-forward units (`pruning`), FP32 or BF16, on the CPU.

Pruning takes longer than the builds that follow it. The narrow network is therefore cached under a
hash of its inputs, and the engines share it.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import json
from pathlib import Path

import numpy as np
from filelock import FileLock

from model_code.artifacts import atomic_file, hash_bytes, hash_path
from model_code.engines.cache import cache_folder
from model_code.engines.onnxruntime_engine import OnnxRuntimeFloat32, open_graph
from model_code.engines.openvino_engine import OpenVinoEngine
from model_code.engines.packaged import EngineFile
from model_code.engines.protocol import EngineSource, Predictor
from model_code.errors import EngineUnavailableError, IntegrityError
from model_code.export import graph, pruning
from model_code.models import network
from model_code.models.predictor import WindowModel

_CODE = hash_path(Path(pruning.__file__))


def narrow_network(source: EngineSource) -> tuple[WindowModel, EngineFile]:
    """The pruned network of `source`, from the cache if it is there.

    Raises:
        EngineUnavailableError: the network has no feed-forward layers.
        EngineError: calibration windows are missing, invalid or too few.
        StorageError: the cache cannot be written.
    """
    windows = source.windows()
    inputs = (
        hash_path(source.model), hash_bytes(windows.tobytes()), _CODE, repr(source.threshold)
    )  # fmt: skip
    folder = cache_folder("pruned")
    stem = hash_bytes("\0".join(inputs).encode())[:32]
    path, facts = folder / f"{stem}.pt", folder / f"{stem}.json"
    with FileLock(folder / f"{stem}.lock"):
        try:
            narrow: WindowModel = network.load(path)
            recipe = json.loads(facts.read_text())
        except (IntegrityError, OSError, ValueError):  # missing or damaged: pruned again
            model = network.load(source.model)
            if not isinstance(model, network.FinancialPredictor):
                raise EngineUnavailableError(str(pruning.not_prunable(model.spec))) from None
            found = pruning.choose(model, windows, source.threshold)
            narrow = found.model
            recipe = {
                "feed_forward": found.width,
                "held_out_max_abs_dp": found.max_abs_dp,
                "held_out_flip_fraction": found.flip_fraction,
                "within_budget": str(found.within_budget).lower(),
                "calibration_windows": len(windows),
                "calibration_sha256": inputs[1],
            }
            network.save(narrow, path)
            with atomic_file(facts) as temporary:
                temporary.write_text(json.dumps(recipe, indent=2) + "\n")
    return narrow, EngineFile(network.flops_per_window(narrow.spec), recipe)


def _make(source: EngineSource, path: Path) -> EngineFile:
    narrow, made = narrow_network(source)
    example_BTF = np.ascontiguousarray(source.windows()[:64])
    graph.export_onnx(narrow, example_BTF, path)
    return made


class OnnxRuntimePruned(OnnxRuntimeFloat32):
    """The narrow network on ONNX Runtime, FP32."""

    name, precision = "onnxruntime-pruned", "fp32"

    def __init__(self) -> None:
        super().__init__()
        self.device = "cpu"

    def _make(self, source: EngineSource, path: Path) -> EngineFile:
        return _make(source, path)

    def _open(self, path: Path, threads: int) -> Predictor:
        return open_graph(path, threads)


class OpenVinoPruned(OpenVinoEngine):
    """The narrow network on OpenVINO, FP32."""

    name, precision = "openvino-pruned", "fp32"

    def _make(self, source: EngineSource, path: Path) -> EngineFile:
        return _make(source, path)


class OpenVinoPrunedBFloat16(OpenVinoPruned):
    """The narrow network in BF16, on processors with native BF16."""

    name, precision, hint = "openvino-pruned-bf16", "bf16", "bf16"
