"""The arithmetic floor: this machine's peak rate of matrix products, measured with the engines.

An engine cannot be faster than its multiply-adds at the highest rate that a large matrix product
reaches on this machine, with all cores and the fastest installed library (the compute bound of the
roofline model: Williams, Waterman and Patterson 2009, CACM 52:4). Datasheet peaks assume clocks
that a shared machine does not sustain; a rate measured in the same run is attainable.

Shapes: M side of a square matrix.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model_code.machine import physical_cores

SIDES = (512, 1024)
REPEATS = 15
GPU_SIDE = 8192

_GPU_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def ceilings(kinds: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Multiply-adds per second, counted twice each (FLOP/s), by "device precision".

    Args:
        kinds: (device, precision) pairs of the engines, for example ("cpu", "int8").

    Returns:
        Rates of the kinds that can be measured; the others are omitted.
    """
    found = {}
    for device, precision in sorted(set(kinds)):
        rate = _gpu(precision) if device == "cuda" else _cpu(precision)
        if rate is not None:
            found[f"{device} {precision}"] = rate
    return found


def _cpu(precision: str) -> float | None:
    rates: tuple[Callable[[int], float], ...]
    match precision:
        case "fp32":
            ours = partial(_torch, dtype=torch.float32), partial(_openvino, precision="f32")
            rates = (*ours, _numpy, _onnxruntime)
        case "bf16":
            rates = (partial(_torch, dtype=torch.bfloat16), partial(_openvino, precision="bf16"))
        case "int8":
            rates = (_integers,)
        case _:
            return None
    return max(rate(side) for rate in rates for side in SIDES)


def _torch(side: int, dtype: torch.dtype) -> float:
    left_MM, right_MM = (torch.ones(side, side, dtype=dtype) for _ in range(2))
    torch.set_num_threads(physical_cores())
    return _rate(side, lambda: torch.mm(left_MM, right_MM))


def _numpy(side: int) -> float:
    left_MM, right_MM = (np.ones((side, side), dtype=np.float32) for _ in range(2))
    return _rate(side, lambda: left_MM @ right_MM)


def _onnxruntime(side: int) -> float:
    weights = np.ones((side, side), dtype=np.float32)
    return _through_onnxruntime(side, "MatMul", TensorProto.FLOAT, TensorProto.FLOAT, weights)


def _integers(side: int) -> float:
    weights = np.ones((side, side), dtype=np.int8)
    return _through_onnxruntime(
        side, "MatMulInteger", TensorProto.UINT8, TensorProto.INT32, weights
    )


def _through_onnxruntime(
    side: int, operator: str, left: int, product: int, weights_MM: NDArray[Any]
) -> float:
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", left, [side, side])],
        [helper.make_tensor_value_info("product", product, [side, side])],
        [onnx.numpy_helper.from_array(weights_MM, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = physical_cores()
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    left_MM = np.ones((side, side), dtype=helper.tensor_dtype_to_np_dtype(left))
    return _rate(side, lambda: session.run(None, {"left": left_MM}))


def _openvino(side: int, precision: str) -> float:
    weights = ov.opset13.constant(np.ones((side, side), dtype=np.float32))
    left = ov.opset13.parameter([side, side], np.float32)
    graph = ov.Model([ov.opset13.matmul(left, weights, False, False)], [left])
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": physical_cores(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = ov.Core().compile_model(graph, "CPU", properties).create_infer_request()
    left_MM = np.ones((side, side), dtype=np.float32)
    return _rate(side, lambda: request.infer([left_MM], share_inputs=True))


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
