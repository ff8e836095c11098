"""TensorRT FP16 on an NVIDIA GPU.

A plan is executable code for one library version and one GPU: its bytes are checked against the
sidecar, the sidecar against the machine, and only then is it deserialised.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import ctypes
import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_code.artifacts import atomic_file, hash_bytes, hash_path
from model_code.engines.packaged import physical_cores, require, require_same, system
from model_code.engines.protocol import EngineSource, Predictor, check_windows, parity_error
from model_code.engines.sidecar import EngineSidecar, PlanFacts, TensorSpec
from model_code.engines.tensorrt_builder import FP32_OPERATORS, PROFILE, build_plan, to_half
from model_code.errors import EngineError
from model_code.settings import (
    CLASS_COUNT,
    FEATURE_COUNT,
    INPUT_NAME,
    MAX_BATCH_SIZE,
    OUTPUT_NAME,
    SEQUENCE_LENGTH,
    TENSORRT_WORKSPACE_BYTES,
)


class TensorRTFloat16:
    """Strongly typed plan, FP16 but for norms, softmax and mean; FP16 input and output."""

    name, precision, device = "tensorrt-fp16", "fp16", "cuda"
    library, file = "tensorrt", "model.plan"

    def availability(self) -> str | None:
        """Needs the driver, a GPU torch can use, and TensorRT's Python package."""
        # before the import: without a driver TensorRT crashes instead of raising
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "no NVIDIA driver (libcuda.so.1)"
        if not torch.cuda.is_available():
            return "torch sees no CUDA GPU: install the extra `gpu`"
        try:
            importlib.import_module(self.library)
        except ImportError as error:
            return f"TensorRT is not installed: {error}"
        return None

    def build(self, source: EngineSource, out: Path) -> EngineSidecar:
        """Convert to FP16, build the plan for this GPU, prove it, write the sidecar.

        Raises:
            EngineUnavailableError: no GPU, driver or library.
            EngineError: TensorRT refuses the graph or builds another precision.
            StorageError: the folder cannot be written.
        """
        require(self.name, self.availability())
        trt = importlib.import_module(self.library)
        started = time.perf_counter()
        plan = build_plan(trt, to_half(source.onnx).SerializeToString())
        path = out / self.file
        with atomic_file(path) as temporary:
            temporary.write_bytes(plan.data)
        predictor = _PlanPredictor(trt, path)
        seconds = time.perf_counter() - started
        sidecar = EngineSidecar(
            engine=self.name,
            library=self.library,
            library_version=str(trt.__version__),
            precision=self.precision,
            fp32_operators=FP32_OPERATORS,
            device=torch.cuda.get_device_name(),
            file=self.file,
            sha256=hash_bytes(plan.data),
            onnx_sha256=hash_path(source.onnx),
            inputs=(
                TensorSpec(name=INPUT_NAME, dtype="FP16", shape=(SEQUENCE_LENGTH, FEATURE_COUNT)),
            ),
            outputs=(TensorSpec(name=OUTPUT_NAME, dtype="FP16", shape=(CLASS_COUNT,)),),
            max_batch=MAX_BATCH_SIZE,
            threads=physical_cores(),
            system=system(),
            build_seconds=seconds,
            parity_error=parity_error(predictor, source.model),
            plan=PlanFacts(
                compute_capability=compute_capability(),
                gpu=torch.cuda.get_device_name(),
                driver=driver_version(),
                cuda=str(torch.version.cuda),
                profile=PROFILE,
                workspace_bytes=TENSORRT_WORKSPACE_BYTES,
                flags=plan.flags,
                half_layers=plan.half_layers,
                float_layers=plan.float_layers,
                timing_cache_sha256=plan.timing_cache_sha256,
            ),
        )
        sidecar.save(out)
        return sidecar

    def load(self, folder: Path) -> Predictor:
        """Check bytes, then machine, then deserialise.

        Raises:
            IntegrityError: bytes differ from the sidecar.
            EngineUnavailableError: no GPU, driver or library.
            EngineError: built for another GPU or TensorRT version.
        """
        sidecar = EngineSidecar.load(folder)
        require_same(self.name, sidecar.engine, folder)
        require(self.name, self.availability())
        trt = importlib.import_module(self.library)
        require_fit(sidecar, str(trt.__version__), compute_capability(), folder)
        return _PlanPredictor(trt, folder / sidecar.file)


def require_fit(sidecar: EngineSidecar, version: str, capability: str, folder: Path) -> None:
    """Refuse a plan made for another machine; TensorRT itself only logs and returns nothing.

    Args:
        sidecar: of the plan.
        version: of the TensorRT at hand.
        capability: SM of the GPU at hand, as "9.0".
        folder: of the engine, for the message.

    Raises:
        EngineError: TensorRT version, SM, operating system or architecture differ.
    """
    built = sidecar.plan.compute_capability if sidecar.plan else "unknown"
    facts = {
        "TensorRT": (sidecar.library_version, version),
        "GPU compute capability": (built, capability),
        "system": (sidecar.system, system()),
    }
    wrong = [f"{name} {was}, here {now}" for name, (was, now) in facts.items() if was != now]
    if wrong:
        raise EngineError(
            f"the plan was built for {'; '.join(wrong)}",
            where=str(folder),
            remedy="build the engine on a machine like the one that serves it",
        )


def compute_capability() -> str:
    """SM of the current GPU, as "9.0"."""
    major, minor = torch.cuda.get_device_capability()
    return f"{major}.{minor}"


def driver_version() -> str:
    """NVIDIA driver version, from the kernel module."""
    path = Path("/sys/module/nvidia/version")
    return path.read_text().strip() if path.is_file() else "unknown"


class _PlanPredictor:
    def __init__(self, trt: Any, path: Path) -> None:
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineError(
                "TensorRT refuses to deserialise the plan (its log says why)",
                where=str(path),
                remedy="build the engine again on this machine",
            )
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(x_BTF, MAX_BATCH_SIZE)
        with torch.cuda.stream(self._stream):
            window_BTF = torch.from_numpy(x_BTF).to("cuda", torch.float16)
            logits_BC = torch.empty((len(x_BTF), CLASS_COUNT), dtype=torch.float16, device="cuda")
            self._context.set_input_shape(INPUT_NAME, tuple(window_BTF.shape))
            self._context.set_tensor_address(INPUT_NAME, window_BTF.data_ptr())
            self._context.set_tensor_address(OUTPUT_NAME, logits_BC.data_ptr())
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise EngineError("TensorRT failed to run the plan (its log says why)")
            answer: NDArray[np.float32] = logits_BC.float().cpu().numpy()
        return answer
