"""FP32 ONNX -> static int8 (QDQ) ONNX, calibrated on training windows.

The attention scores, which have no weights, stay FP32. If int8 in all other products changes a
probability by more than `MAX_ABS_DP`, only the feed-forward products are int8 (nine tenths of the
arithmetic). Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference".

Shapes: B windows, T = 64 steps, F = 16 features, C = 2 classes.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from model_code import machine
from model_code.errors import EngineError
from model_code.models.probability import probability
from model_code.settings import INPUT_NAME, OUTPUT_NAME

CHUNK = 64  # calibration windows per step
WINDOWS = 512  # calibration uses at most this many: ranges converge with far fewer
MAX_ABS_DP = 0.01  # of a probability, on the calibration windows, with all products in int8
DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")


@dataclass(frozen=True)
class Quantised:
    """Result of a quantisation.

    Attributes:
        what: the quantised products: "all products" or "feed-forward".
        products: their node names.
        max_abs_dp: largest probability difference to FP32 on the calibration windows.
    """

    what: str
    products: tuple[str, ...]
    max_abs_dp: float


class _Windows(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x_BTF: NDArray[np.float32]) -> None:
        self._chunks = iter(np.array_split(x_BTF, -(-len(x_BTF) // CHUNK)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        chunk = next(self._chunks, None)
        return None if chunk is None else {INPUT_NAME: chunk}


def needs_reduced_range() -> bool:
    """Whether u8 x s8 products saturate: processors without VNNI add two of them in 16 bits."""
    return not machine.flags() & set(DOT_PRODUCTS)


def quantise(
    onnx_path: Path, x_BTF: NDArray[np.float32], out: Path, *, reduce_range: bool
) -> Quantised:
    """Write the int8 graph of `onnx_path`: all products if the error is within `MAX_ABS_DP`.

    Otherwise only the feed-forward products are quantised, whatever their error: the gate judges
    the engine.

    Args:
        onnx_path: exported graph.
        x_BTF: training windows; `WINDOWS` of them, evenly spaced, are used for calibration.
        out: file to write.
        reduce_range: weights in 7 bits, for processors whose 8-bit products saturate.

    Raises:
        EngineError: the graph has no feed-forward layer, or the quantiser refuses it.
    """
    some = np.linspace(0, len(x_BTF) - 1, min(WINDOWS, len(x_BTF))).astype(np.int64)
    x_BTF = np.ascontiguousarray(x_BTF[some])
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch, _quiet():
        prepared = Path(scratch) / "prepared.onnx"
        try:
            quant_pre_process(onnx_path, prepared, skip_symbolic_shape=True)
            graph = onnx.load(prepared)
            expected_B = _probability(onnx_path, x_BTF)
            found = Quantised("feed-forward", (), float("inf"))
            for what, products in (
                ("all products", constant_products(graph)),
                ("feed-forward", feed_forward_products(graph)),
            ):
                _write(prepared, x_BTF, out, products, reduce_range)
                worst = float(np.abs(_probability(out, x_BTF) - expected_B).max())
                found = Quantised(what, tuple(products), worst)
                if worst <= MAX_ABS_DP:
                    break
        except EngineError:
            raise
        except Exception as error:  # the quantiser's errors share no base class
            raise EngineError(
                f"the quantiser refuses the graph: {error}", where=str(onnx_path)
            ) from error
    return found


def _write(
    prepared: Path, x_BTF: NDArray[np.float32], out: Path, products: list[str], reduce_range: bool
) -> None:
    quantization.quantize_static(
        prepared,
        out,
        _Windows(x_BTF),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        reduce_range=reduce_range,
        nodes_to_quantize=products,
        op_types_to_quantize=["MatMul", "Gemm"],
        # products output FP32: the sum or norm that follows is computed in FP32 anyway
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
    )


def _probability(path: Path, x_BTF: NDArray[np.float32]) -> NDArray[np.float64]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = [
        session.run([OUTPUT_NAME], {INPUT_NAME: x_BTF[start : start + CHUNK]})[0]
        for start in range(0, len(x_BTF), CHUNK)
    ]
    return probability(np.concatenate(logits))


def constant_products(model: onnx.ModelProto) -> list[str]:
    """Names of all matrix products with weights; the attention scores have none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights
    ]


def feed_forward_products(model: onnx.ModelProto) -> list[str]:
    """Names of the matrix products just before and just after each ReLU.

    Raises:
        EngineError: there are none.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type != "Relu":
            continue
        before = producer.get(node.input[0])
        while before is not None and before.op_type not in ("MatMul", "Gemm"):
            before = next((producer[name] for name in before.input if name in producer), None)
        after = [
            user
            for user in model.graph.node
            if node.output[0] in user.input or _reshaped(producer, user, node.output[0])
        ]
        found += [before.name] if before is not None else []
        found += [user.name for user in after if user.op_type in ("MatMul", "Gemm")]
    if not found:
        raise EngineError("the graph has no feed-forward layer to quantise")
    return list(dict.fromkeys(found))


def _reshaped(producer: dict[str, onnx.NodeProto], user: onnx.NodeProto, name: str) -> bool:
    source = producer.get(user.input[0]) if user.input else None
    return source is not None and source.op_type == "Reshape" and name in source.input


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the quantiser's advice to preprocess, which is already done."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
