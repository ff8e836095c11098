"""ONNX Runtime: FP32 on the CPU or, where its CUDA provider is installed, on the GPU.

On a CPU two sessions share the file. The session for batch 1 has a fixed batch, so that shapes
computed at run time become constants, and binds its buffers once.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from model_code import machine
from model_code.engines.packaged import EngineFile, PackagedEngine
from model_code.engines.protocol import EngineSource, Predictor, check_windows
from model_code.errors import EngineError
from model_code.export.trees import TREE_NODE
from model_code.settings import (
    CLASS_COUNT,
    FEATURE_COUNT,
    INPUT_NAME,
    OUTPUT_NAME,
    SEQUENCE_LENGTH,
)

BATCH_DIM = "batch"  # its name in the export
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def open_session(path: Path, threads: int, *, provider: str = CPU, single: bool = False) -> Any:
    """A session with all graph optimisations, sequential execution, threads that do not spin.

    Args:
        path: ONNX file.
        threads: intra-operator threads.
        provider: execution provider; a session that falls back to another is refused.
        single: fix the batch at 1.

    Raises:
        EngineError: ONNX Runtime refuses the graph, or uses another provider.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # between two calls of a live stream, spinning threads would take a core from everything else
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    if single:
        options.add_free_dimension_override_by_name(BATCH_DIM, 1)
    # TF32 is not FP32
    providers = [CPU] if provider == CPU else [(CUDA, {"use_tf32": "0"}), CPU]
    try:
        session = ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # its exceptions share no public base class
        raise EngineError(f"ONNX Runtime refuses the graph: {error}", where=str(path)) from error
    found = session.get_providers()[0]
    if found != provider:
        raise EngineError(
            f"ONNX Runtime uses {found} instead of {provider}",
            where=str(path),
            remedy="install the CUDA and cuDNN that onnxruntime-gpu requires, or onnxruntime",
        )
    return session


class _Single:
    """Batch 1 with buffers bound once: no allocation, no lookup by name."""

    def __init__(self, session: Any) -> None:
        self._session, self._binding = session, session.io_binding()
        self._x_BTF = np.zeros((1, SEQUENCE_LENGTH, FEATURE_COUNT), np.float32)
        self._logits_BC = np.zeros((1, CLASS_COUNT), np.float32)
        for bind, name, array in (
            (self._binding.bind_input, INPUT_NAME, self._x_BTF),
            (self._binding.bind_output, OUTPUT_NAME, self._logits_BC),
        ):
            bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        self._x_BTF[:] = x_BTF
        self._session.run_with_iobinding(self._binding)
        return self._logits_BC.copy()


class _OnnxPredictor:
    def __init__(self, path: Path, threads: int, provider: str, *, fix_batch: bool = True) -> None:
        self._session = open_session(path, threads, provider=provider)
        self._single = None
        if provider == CPU:
            fixed = open_session(path, threads, single=True) if fix_batch else self._session
            self._single = _Single(fixed)

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(x_BTF)
        if self._single is not None and len(x_BTF) == 1:
            return self._single.predict(x_BTF)
        logits_BC: NDArray[np.float32] = self._session.run([OUTPUT_NAME], {INPUT_NAME: x_BTF})[0]
        return logits_BC


class OnnxRuntimeFloat32(PackagedEngine):
    """The unmodified export; on the GPU if ONNX Runtime's CUDA provider is installed.

    On a CPU it takes the form with trees as one node, if there is one; `recipe` then names the
    operator. The CUDA provider does not have it.
    """

    name, precision = "onnxruntime-fp32", "fp32"
    library, file = "onnxruntime", "model.onnx"

    def __init__(self) -> None:
        gpu = CUDA in ort.get_available_providers() and torch.cuda.is_available()
        self.device = "cuda" if gpu else "cpu"

    def availability(self) -> str | None:
        """Always available."""
        return None

    def _export(self, source: EngineSource) -> Path:
        native = source.onnx_trees if self.device == "cpu" else None
        return native or source.onnx

    def _make(self, source: EngineSource, path: Path) -> EngineFile:
        made = super()._make(source, path)
        native = self._export(source) == source.onnx_trees
        return replace(made, recipe={"trees": TREE_NODE}) if native else made

    def _open(self, path: Path, threads: int) -> Predictor:
        return _OnnxPredictor(path, threads, CUDA if self.device == "cuda" else CPU)

    def _library_version(self) -> str:
        return str(ort.__version__)  # the distribution may be onnxruntime-gpu

    def _device_name(self) -> str:
        return machine.gpus()[0] if self.device == "cuda" else super()._device_name()


def open_graph(path: Path, threads: int, *, fix_batch: bool = True) -> Predictor:
    """Open an exported graph that is not an engine, for example a registered model's.

    Args:
        path: ONNX file.
        threads: intra-operator threads.
        fix_batch: use a separate session, with a fixed batch, for batch 1.

    Raises:
        EngineError: ONNX Runtime refuses it.
    """
    return _OnnxPredictor(path, threads, CPU, fix_batch=fix_batch)
