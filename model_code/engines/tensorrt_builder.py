"""Typed ONNX -> TensorRT plan, for the API of TensorRT 10.12 and later.

TensorRT 11 has no weak typing: the graph defines the precision (`tensorrt_graph`), the network is
strongly typed, and the old flags (`BuilderFlag.FP16`) are removed. The module is an argument, so
that the same code drives `tensorrt` and, on machines without a GPU, the builder of `tensorrt_rtx`.

Source: NVIDIA, "TensorRT Developer Guide", strongly typed networks.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from model_code.errors import EngineError
from model_code.settings import (
    FEATURE_COUNT,
    INPUT_NAME,
    MAX_BATCH_SIZE,
    PREFERRED_BATCH_SIZES,
    SEQUENCE_LENGTH,
    TENSORRT_WORKSPACE_BYTES,
)

PROFILE = (1, max(PREFERRED_BATCH_SIZES), MAX_BATCH_SIZE)


@dataclass(frozen=True)
class Plan:
    """A serialised engine and facts about its build.

    Attributes:
        data: the plan.
        layers: number of layers of the parsed network by output type, as {"HALF": 70}.
        flags: names of the builder flags set.
        timing_cache: after the build; pass it to the next build.
    """

    data: bytes
    layers: dict[str, int]
    flags: tuple[str, ...]
    timing_cache: bytes


def build_plan(
    trt: Any,
    graph: bytes,
    *,
    layer_type: str,
    sparse: bool = False,
    profile: tuple[int, int, int] = PROFILE,
    workspace_bytes: int = TENSORRT_WORKSPACE_BYTES,
    timing_cache: bytes = b"",
) -> Plan:
    """Build a strongly typed plan with one optimisation profile.

    Args:
        trt: the `tensorrt` module, or one with the same builder API.
        graph: serialised ONNX; its types are the plan's types.
        layer_type: name of the `DataType` that some layers must have: HALF, BF16 or FLOAT. With
            FLOAT no layer may have a 16-bit type.
        sparse: let the builder use 2:4 sparse kernels where weights allow.
        profile: batch sizes (min, opt, max).
        workspace_bytes: limit of the builder's scratch memory.
        timing_cache: of an earlier build; one of another GPU or version is ignored.

    Raises:
        EngineError: the parser or the builder fails (with the library's messages), or the parsed
            network does not have the requested type.
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
    found = ", ".join(f"{count} {name}" for name, count in sorted(layers.items()))
    if not layers[layer_type]:
        raise EngineError(
            f"the parsed network has no {layer_type} layer; its layers: {found or 'none'}",
            remedy="convert the graph with tensorrt_graph.RECIPES before the build",
        )
    if layer_type == "FLOAT" and layers["HALF"] + layers["BF16"]:
        raise EngineError(
            f"the network of an FP32 plan has 16-bit layers: {found}",
            remedy="build from the exported graph",
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)  # FP32 layers must compute in true FP32
    # the inspector reads the built layers' types from it
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    known = config.create_timing_cache(timing_cache)
    if known is None or not config.set_timing_cache(known, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    shapes = [(batch, SEQUENCE_LENGTH, FEATURE_COUNT) for batch in profile]
    optimisation = builder.create_optimization_profile()
    optimisation.set_shape(INPUT_NAME, *shapes)
    # set_shape returns None in either case: only a successful build validates the profile
    config.add_optimization_profile(optimisation)
    data = builder.build_serialized_network(network, config)
    if data is None:
        raise EngineError(
            f"TensorRT built no plan for batches {profile}: "
            f"{'; '.join(log.errors) or 'no reason given'}",
            remedy="check the profile and the free GPU memory",
        )
    flags = trt.BuilderFlag.__members__.items()
    return Plan(
        data=bytes(data),
        layers=dict(layers),
        flags=tuple(name for name, flag in flags if config.get_flag(flag)),
        timing_cache=bytes(config.get_timing_cache().serialize()),
    )


def layer_types(trt: Any, network: Any) -> Counter[str]:
    """Layers of a parsed network by the type of their first output, without constants and casts."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    skipped = (trt.LayerType.CONSTANT, trt.LayerType.CAST)
    return Counter(layer.get_output(0).dtype.name for layer in layers if layer.type not in skipped)


def trtexec_command(graph: str, plan: str, timings: str, *, sparse: bool) -> str:
    """The `trtexec` command that builds the same plan, to reproduce or to profile it.

    Args:
        graph: path of the typed ONNX file.
        plan: path to save to.
        timings: path of the timing cache of the build.
        sparse: as in `build_plan`.
    """
    shapes = [
        f"--{bound}Shapes={INPUT_NAME}:{batch}x{SEQUENCE_LENGTH}x{FEATURE_COUNT}"
        for bound, batch in zip(("min", "opt", "max"), PROFILE, strict=True)
    ]
    return " ".join(
        [
            "trtexec",
            f"--onnx={graph}",
            "--stronglyTyped",  # required by 10.x, implied by 11
            "--noTF32",
            *shapes,
            f"--memPoolSize=workspace:{TENSORRT_WORKSPACE_BYTES >> 20}M",
            "--profilingVerbosity=detailed",
            f"--timingCacheFile={timings}",
            *(["--sparsity=enable"] if sparse else []),
            f"--saveEngine={plan}",
        ]
    )


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()
