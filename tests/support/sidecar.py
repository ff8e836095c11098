"""Sidecars of engines that were never built."""

from typing import Literal

from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar, PlanFacts, TensorSpec
from model_code.settings import INPUT_NAME, OUTPUT_NAME

PLAN = PlanFacts(
    compute_capability="9.0",
    gpu="a GPU",
    driver="600.1",
    cuda="13.0",
    profile=(1, 32, 64),
    workspace_bytes=4 << 30,
    flags=(),
    layers={"HALF": 9, "FLOAT": 3},
    timing_cache_sha256="0" * 64,
    trtexec="trtexec",
)


def sidecar(engine: str, library_version: str = "1") -> EngineSidecar:
    """An engine on this GPU with a plan if its name says TensorRT, else a graph on a CPU."""
    on_gpu = engine.startswith("tensorrt")
    dtype: Literal["FP32", "FP16"] = "FP16" if on_gpu else "FP32"
    return EngineSidecar(
        engine=engine,
        library=engine.partition("-")[0],
        library_version=library_version,
        precision=ENGINES[engine].precision if engine in ENGINES else "fp32",
        device="a device",
        file="model.plan" if on_gpu else "model.onnx",
        sha256="0" * 64,
        onnx_sha256="1" * 64,
        inputs=(TensorSpec(name=INPUT_NAME, dtype=dtype, shape=(64, 16)),),
        outputs=(TensorSpec(name=OUTPUT_NAME, dtype=dtype, shape=(2,)),),
        max_batch=64,
        threads=2,
        system="Linux x86_64",
        flops=1000,
        build_seconds=1.0,
        parity_error=0.0,
        plan=PLAN if on_gpu else None,
    )
