"""Convert ONNX to the types of a TensorRT plan; a strongly typed network uses exactly these types.

Sources: NVIDIA, "TensorRT Developer Guide", strongly typed networks and structured sparsity; Mishra
et al. 2021, "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxconverter_common import float16  # type: ignore[import-untyped]

from model_code.engines.quantisation import feed_forward_products
from model_code.errors import EngineError

# sums of squares, of exponentials and over time lose too much precision in 16 bits
FP32_OPERATORS = ("LayerNormalization", "Softmax", "ReduceMean")


@dataclass(frozen=True)
class Recipe:
    """Types of one TensorRT engine's graph.

    Attributes:
        convert: returns the typed graph of an exported file.
        layer_type: name of the `tensorrt.DataType` that its matrix products must have.
        io: type of input and output, as Triton names it.
        fp32_operators: ONNX operators kept in FP32 on purpose.
        sparse: whether the builder may use 2:4 sparse kernels.
    """

    convert: Callable[[Path], onnx.ModelProto]
    layer_type: str
    io: Literal["FP32", "FP16"]
    fp32_operators: tuple[str, ...] = ()
    sparse: bool = False


def to_half(onnx_path: Path) -> onnx.ModelProto:
    """The graph in FP16, including inputs and outputs; `FP32_OPERATORS` stay FP32.

    Operators before the first convolution stay FP32 too: standardisation divides by deviations
    that FP16 may flush to zero.

    Raises:
        EngineError: the result is not a valid graph.
    """
    return _checked(_half(onnx.load(onnx_path), FP32_OPERATORS, keep_io=False), onnx_path)


def to_bfloat(onnx_path: Path) -> onnx.ModelProto:
    """The graph in BF16, input and output FP32; `FP32_OPERATORS` and convolutions stay FP32.

    Raw features stay FP32, because BF16 has only eight significant bits. ONNX has no BF16
    convolution at this opset; the network's is a few thousandths of the arithmetic.

    Raises:
        EngineError: the result is not a valid graph.
    """
    exact = onnx.load(onnx_path)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in exact.graph.initializer}
    model = _half(exact, (*FP32_OPERATORS, "Conv"), keep_io=True)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            value = weights.get(tensor.name, numpy_helper.to_array(tensor))
            rounded = np.asarray(value, np.float32).astype(ml_dtypes.bfloat16)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
    del model.graph.value_info[:]
    return _checked(model, onnx_path)


def to_sparse_half(onnx_path: Path) -> onnx.ModelProto:
    """As `to_half`, with the two smallest of every four feed-forward weights in a sum set to zero.

    Raises:
        EngineError: the graph has no feed-forward layer, or the result is not a valid graph.
    """
    model = onnx.load(onnx_path)
    products = set(feed_forward_products(model))
    names = {node.input[1] for node in model.graph.node if node.name in products}
    for tensor in model.graph.initializer:
        if tensor.name in names:
            weight_IO = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(two_of_four(weight_IO), tensor.name))
    return _checked(_half(model, FP32_OPERATORS, keep_io=False), onnx_path)


def two_of_four(weight_IO: np.ndarray) -> np.ndarray:
    """Keep the two largest of each four consecutive weights along the summed axis (the first)."""
    inputs, outputs = weight_IO.shape
    if inputs % 4:
        raise EngineError(f"a layer with {inputs} inputs cannot be pruned 2:4")
    groups = weight_IO.reshape(inputs // 4, 4, outputs)
    rank = np.abs(groups).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return np.where(rank >= 2, groups, 0).reshape(inputs, outputs).astype(weight_IO.dtype)


RECIPES = {
    "tensorrt-fp32": Recipe(onnx.load, "FLOAT", "FP32"),
    "tensorrt-fp16": Recipe(to_half, "HALF", "FP16", FP32_OPERATORS),
    "tensorrt-bf16": Recipe(to_bfloat, "BF16", "FP32", (*FP32_OPERATORS, "Conv")),
    "tensorrt-sparse": Recipe(to_sparse_half, "HALF", "FP16", FP32_OPERATORS, sparse=True),
}


def _half(
    model: onnx.ModelProto, fp32_operators: tuple[str, ...], *, keep_io: bool
) -> onnx.ModelProto:
    nodes = [node.op_type for node in model.graph.node]
    before = nodes.index("Conv") if "Conv" in nodes else 0
    with warnings.catch_warnings():
        # weights under 6e-8 become the smallest FP16 number; parity is measured after the build
        warnings.filterwarnings("ignore", message="the float32 number .* will be truncated")
        half: onnx.ModelProto = float16.convert_float_to_float16(
            model,
            keep_io_types=keep_io,
            op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *fp32_operators],
            node_block_list=[node.name for node in model.graph.node[:before]],
        )
    return half


def _checked(model: onnx.ModelProto, onnx_path: Path) -> onnx.ModelProto:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(
            f"conversion to 16 bits broke the graph: {error}", where=str(onnx_path)
        ) from error
    return model
