"""The arithmetic floor: how fast this machine multiplies matrices, measured beside the engines.

An engine cannot answer faster than its multiply-adds take at the highest rate that a large matrix
product reaches here, all cores at work. Peak rates on data sheets assume clocks that a shared
machine does not hold; a rate seen in the same run is the limit that can be reached.

Shapes: M side of a square matrix.
"""

import time
from collections.abc import Callable, Iterable

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

from model_code.engines.packaged import physical_cores

SIDES = (512, 1024)
REPEATS = 15
GPU_SIDE = 8192

_GPU_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def ceilings(kinds: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Multiply-adds per second, counted twice each (FLOP/s), by "device precision".

    Args:
        kinds: (device, precision) pairs of the engines at hand, ("cpu", "int8") for example.

    Returns:
        Rates of the kinds that can be measured here; others are left out.
    """
    found = {}
    for device, precision in sorted(set(kinds)):
        rate = _gpu(precision) if device == "cuda" else _cpu(precision)
        if rate is not None:
            found[f"{device} {precision}"] = rate
    return found


def _cpu(precision: str) -> float | None:
    match precision:
        case "fp32":
            return max(max(_torch(side, torch.float32), _numpy(side)) for side in SIDES)
        case "bf16":
            return max(_torch(side, torch.bfloat16) for side in SIDES)
        case "int8":
            return max(_integers(side) for side in SIDES)
    return None


def _torch(side: int, dtype: torch.dtype) -> float:
    left_MM, right_MM = (torch.ones(side, side, dtype=dtype) for _ in range(2))
    torch.set_num_threads(physical_cores())
    return _rate(side, lambda: torch.mm(left_MM, right_MM))


def _numpy(side: int) -> float:
    left_MM, right_MM = (np.ones((side, side), dtype=np.float32) for _ in range(2))
    return _rate(side, lambda: left_MM @ right_MM)


def _integers(side: int) -> float:
    weights = np.ones((side, side), dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "integers",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, [side, side])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [side, side])],
        [onnx.numpy_helper.from_array(weights, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = physical_cores()
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    left_MM = np.ones((side, side), dtype=np.uint8)
    return _rate(side, lambda: session.run(None, {"left": left_MM}))


def _gpu(precision: str) -> float | None:
    if precision not in _GPU_TYPES:
        return None
    left_MM, right_MM = (
        torch.ones(GPU_SIDE, GPU_SIDE, dtype=_GPU_TYPES[precision], device="cuda") for _ in range(2)
    )

    def work() -> None:
        torch.mm(left_MM, right_MM)
        torch.cuda.synchronize()

    return _rate(GPU_SIDE, work)


def _rate(side: int, work: Callable[[], object]) -> float:
    work()
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return 2.0 * side**3 / best
