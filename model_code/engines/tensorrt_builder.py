"""FP32 ONNX -> FP16 ONNX -> TensorRT plan, against the API of TensorRT 10.12 and later.

TensorRT 11 has no weak typing: precision is written in the graph, the network is strongly typed,
and the flags of old (`BuilderFlag.FP16`) are gone. The module is passed in, so that the same code
drives `tensorrt` and, on machines without a GPU, the builder of `tensorrt_rtx`.

Source: NVIDIA, "TensorRT Developer Guide", strongly typed networks.
"""

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnxconverter_common import float16  # type: ignore[import-untyped]

from model_code.artifacts import hash_bytes
from model_code.errors import EngineError
from model_code.settings import (
    FEATURE_COUNT,
    INPUT_NAME,
    MAX_BATCH_SIZE,
    PREFERRED_BATCH_SIZES,
    SEQUENCE_LENGTH,
    TENSORRT_WORKSPACE_BYTES,
)

# sums of squares, of exponentials, and over time lose what FP16 cannot hold
FP32_OPERATORS = ("LayerNormalization", "Softmax", "ReduceMean")
PROFILE = (1, max(PREFERRED_BATCH_SIZES), MAX_BATCH_SIZE)


@dataclass(frozen=True)
class Plan:
    """A serialised engine and what is known of its making.

    Attributes:
        data: the plan.
        half_layers: layers of the parsed network that answer in FP16.
        float_layers: layers that answer in FP32.
        flags: names of the builder flags set.
        timing_cache_sha256: of the cache after the build.
    """

    data: bytes
    half_layers: int
    float_layers: int
    flags: tuple[str, ...]
    timing_cache_sha256: str


def to_half(onnx_path: Path) -> onnx.ModelProto:
    """The graph in FP16, inputs and outputs included; `FP32_OPERATORS` stay FP32.

    What comes before the first convolution stays FP32 too: standardisation divides by spreads
    that FP16 may flush to zero.

    Raises:
        EngineError: the result is not a valid graph.
    """
    model = onnx.load(onnx_path)
    nodes = [node.op_type for node in model.graph.node]
    before = nodes.index("Conv") if "Conv" in nodes else 0
    with warnings.catch_warnings():
        # weights under 6e-8 become the smallest FP16 number; parity is measured after the build
        warnings.filterwarnings("ignore", message="the float32 number .* will be truncated")
        half: onnx.ModelProto = float16.convert_float_to_float16(
            model,
            keep_io_types=False,
            op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *FP32_OPERATORS],
            node_block_list=[node.name for node in model.graph.node[:before]],
        )
    try:
        onnx.checker.check_model(half, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(
            f"FP16 conversion broke the graph: {error}", where=str(onnx_path)
        ) from error
    return half


def build_plan(
    trt: Any,
    graph: bytes,
    *,
    profile: tuple[int, int, int] = PROFILE,
    workspace_bytes: int = TENSORRT_WORKSPACE_BYTES,
    expect_half: bool = True,
) -> Plan:
    """Build a strongly typed plan with one optimisation profile.

    Args:
        trt: the `tensorrt` module, or one with the same builder API.
        graph: serialised ONNX; its types are the plan's types.
        profile: batch sizes (min, opt, max).
        workspace_bytes: limit of the builder's scratch memory.
        expect_half: refuse a network without FP16 layers.

    Raises:
        EngineError: the parser or the builder refuses, with the library's own messages, or the
            parsed network holds no FP16 layer though it should.
    """
    log = _log(trt)
    builder = trt.Builder(log)
    # 10.12 to 10.x need the flag, 11 ignores it
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise EngineError(f"TensorRT's parser refuses the graph: {'; '.join(errors)}")
    layers = layer_types(trt, network)
    half, single = layers[trt.DataType.HALF], layers[trt.DataType.FLOAT]
    if expect_half and half == 0:
        raise EngineError(
            f"a plan asked for in FP16 holds no FP16 layer ({single} in FP32)",
            remedy="convert the graph with to_half before the build",
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)  # what is kept in FP32 is meant to be FP32
    config.set_timing_cache(config.create_timing_cache(b""), False)
    shapes = [(batch, SEQUENCE_LENGTH, FEATURE_COUNT) for batch in profile]
    optimisation = builder.create_optimization_profile()
    optimisation.set_shape(INPUT_NAME, *shapes)
    # set_shape answers None for good and for bad: only a plan proves the profile
    config.add_optimization_profile(optimisation)
    data = builder.build_serialized_network(network, config)
    if data is None:
        raise EngineError(
            f"TensorRT built no plan for batches {profile}: {'; '.join(log.errors) or 'no reason'}",
            remedy="check the profile and the free GPU memory",
        )
    flags = trt.BuilderFlag.__members__.items()
    return Plan(
        data=bytes(data),
        half_layers=half,
        float_layers=single,
        flags=tuple(name for name, flag in flags if config.get_flag(flag)),
        timing_cache_sha256=hash_bytes(bytes(config.get_timing_cache().serialize())),
    )


def layer_types(trt: Any, network: Any) -> Counter[Any]:
    """Layers of a parsed network by the type of their first output; constants left out."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    skipped = (trt.LayerType.CONSTANT, trt.LayerType.CAST)
    return Counter(layer.get_output(0).dtype for layer in layers if layer.type not in skipped)


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()
