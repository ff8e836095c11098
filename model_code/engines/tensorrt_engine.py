"""TensorRT on an NVIDIA GPU: FP32, FP16, BF16, and FP16 with 2:4 sparse feed-forward weights.

A plan is executable code for one library version and one GPU. It is deserialised only after its
bytes have been checked against the sidecar and the sidecar against the machine.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import ctypes
import importlib
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from model_code.artifacts import atomic_file, hash_bytes, hash_path
from model_code.engines.cache import cache_folder
from model_code.engines.packaged import require, require_same, system
from model_code.engines.pinned import Buffers
from model_code.engines.protocol import EngineSource, Predictor, check_windows, parity_error
from model_code.engines.sidecar import EngineSidecar, PlanFacts, TensorSpec
from model_code.engines.tensorrt_builder import PROFILE, build_plan, trtexec_command
from model_code.engines.tensorrt_graph import RECIPES
from model_code.engines.tensorrt_inspector import (
    BuiltLayer,
    built_layers,
    products_of,
    require_types,
)
from model_code.errors import EngineError
from model_code.machine import physical_cores
from model_code.models import network
from model_code.settings import (
    CLASS_COUNT,
    FEATURE_COUNT,
    INPUT_NAME,
    MAX_BATCH_SIZE,
    OUTPUT_NAME,
    SEQUENCE_LENGTH,
    TENSORRT_WORKSPACE_BYTES,
)

GRAPH_FILE = "typed.onnx"
TIMING_FILE = "timing.cache"
DEVICE = "cuda"


class TensorRTEngine:
    """Strongly typed plan of one recipe.

    Args:
        name: a key of `tensorrt_graph.RECIPES`.
        precision: of the matrix products.
    """

    device = "cuda"
    library, file = "tensorrt", "model.plan"

    def __init__(self, name: str, precision: str) -> None:
        self.name, self.precision = name, precision
        self._recipe = RECIPES[name]

    def availability(self) -> str | None:
        """Needs the driver, a GPU that torch can use, and TensorRT's Python package."""
        # before the import: without a driver TensorRT crashes instead of raising
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "no GPU (no NVIDIA driver, libcuda.so.1)"
        if not torch.cuda.is_available():
            return "no GPU that torch can use: install the extra `gpu`"
        try:
            importlib.import_module(self.library)
        except ImportError as error:
            return f"TensorRT is not installed: {error}"
        return None

    def build(self, source: EngineSource, out: Path) -> EngineSidecar:
        """Convert the graph's types, build and run the plan on this GPU, write the sidecar.

        Raises:
            EngineUnavailableError: no GPU, driver or library.
            EngineError: TensorRT refuses the graph, or the built engine has another precision.
            StorageError: the folder cannot be written.
        """
        require(self.name, self.availability())
        trt = importlib.import_module(self.library)
        started = time.perf_counter()
        recipe, version = self._recipe, str(trt.__version__)
        typed = recipe.convert(source.onnx)
        graph = typed.SerializeToString()
        known = cache_folder("tensorrt") / f"{version}-sm{compute_capability()}.timing"
        plan = build_plan(
            trt,
            graph,
            layer_type=recipe.layer_type,
            sparse=recipe.sparse,
            timing_cache=known.read_bytes() if known.is_file() else b"",
        )
        path = out / self.file
        for file, data in (
            (known, plan.timing_cache),
            (out / GRAPH_FILE, graph),
            (out / TIMING_FILE, plan.timing_cache),
            (path, plan.data),
        ):
            with atomic_file(file) as temporary:
                temporary.write_bytes(data)
        predictor = _PlanPredictor(trt, path, recipe.io)
        products = products_of(typed, without=recipe.fp32_operators)
        built = require_types(predictor.layers(trt), products, recipe.layer_type)
        seconds = time.perf_counter() - started
        io = recipe.io
        sidecar = EngineSidecar(
            engine=self.name,
            library=self.library,
            library_version=version,
            precision=self.precision,
            fp32_operators=recipe.fp32_operators,
            device=torch.cuda.get_device_name(),
            file=self.file,
            sha256=hash_bytes(plan.data),
            onnx_sha256=hash_path(source.onnx),
            inputs=(TensorSpec(name=INPUT_NAME, dtype=io, shape=(SEQUENCE_LENGTH, FEATURE_COUNT)),),
            outputs=(TensorSpec(name=OUTPUT_NAME, dtype=io, shape=(CLASS_COUNT,)),),
            max_batch=MAX_BATCH_SIZE,
            threads=physical_cores(),
            system=system(),
            flops=network.flops_per_window(network.load(source.model).spec),
            recipe={"feed_forward_weights": "2 of 4"} if recipe.sparse else {},
            build_seconds=seconds,
            parity_error=parity_error(predictor, source),
            plan=PlanFacts(
                compute_capability=compute_capability(),
                gpu=torch.cuda.get_device_name(),
                driver=driver_version(),
                cuda=str(torch.version.cuda),
                profile=PROFILE,
                workspace_bytes=TENSORRT_WORKSPACE_BYTES,
                flags=plan.flags,
                layers=plan.layers,
                built_layers=built,
                timing_cache_sha256=hash_bytes(plan.timing_cache),
                trtexec=trtexec_command(GRAPH_FILE, self.file, TIMING_FILE, sparse=recipe.sparse),
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
        return _PlanPredictor(trt, folder / sidecar.file, self._recipe.io)


def require_fit(sidecar: EngineSidecar, version: str, capability: str, folder: Path) -> None:
    """Refuse a plan built for another machine; TensorRT itself only logs and returns None.

    Args:
        sidecar: of the plan.
        version: of the installed TensorRT.
        capability: SM of this machine's GPU, as "9.0".
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
    def __init__(self, trt: Any, path: Path, io: Literal["FP32", "FP16"]) -> None:
        dtype = torch.float16 if io == "FP16" else torch.float32
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineError(
                "TensorRT refuses to deserialise the plan (the reason is in its log)",
                where=str(path),
                remedy="build the engine again on this machine",
            )
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._buffers = Buffers(DEVICE, dtype)
        self._logits_BC = torch.empty((MAX_BATCH_SIZE, CLASS_COUNT), dtype=dtype, device=DEVICE)
        self._context.set_tensor_address(INPUT_NAME, self._buffers.windows.data_ptr())
        self._context.set_tensor_address(OUTPUT_NAME, self._logits_BC.data_ptr())

    def layers(self, trt: Any) -> tuple[BuiltLayer, ...]:
        """The plan's layers at the batch that it is optimised for."""
        self._context.set_input_shape(INPUT_NAME, (PROFILE[1], SEQUENCE_LENGTH, FEATURE_COUNT))
        return built_layers(trt, self._engine, self._context)

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(x_BTF, MAX_BATCH_SIZE)
        count = len(x_BTF)
        with torch.cuda.stream(self._stream):
            self._buffers.send(torch.from_numpy(x_BTF))
            self._context.set_input_shape(INPUT_NAME, (count, SEQUENCE_LENGTH, FEATURE_COUNT))
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise EngineError("TensorRT failed to run the plan (the reason is in its log)")
            return self._buffers.receive(self._logits_BC[:count])
