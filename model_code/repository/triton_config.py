"""Write `config.pbtxt` from an engine's sidecar, through Triton's own protobuf schema.

Source: triton-inference-server/common, protobuf/model_config.proto.
"""

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from model_code.engines.sidecar import EngineSidecar, TensorSpec
from model_code.errors import EngineError
from model_code.settings import MODEL_NAME, PREFERRED_BATCH_SIZES, ServingSpec

VERSIONS_KEPT = 2

# engine -> (platform, backend); eager torch is the reference and is not served
SERVABLE = {
    "onnxruntime-fp32": ("onnxruntime_onnx", "onnxruntime"),
    "onnxruntime-int8": ("onnxruntime_onnx", "onnxruntime"),
    "onnxruntime-pruned": ("onnxruntime_onnx", "onnxruntime"),
    "openvino-fp32": ("", "openvino"),
    "openvino-bf16": ("", "openvino"),
    "openvino-int8": ("", "openvino"),
    "openvino-pruned": ("", "openvino"),
    "openvino-pruned-bf16": ("", "openvino"),
    "tensorrt-fp32": ("tensorrt_plan", "tensorrt"),
    "tensorrt-fp16": ("tensorrt_plan", "tensorrt"),
    "tensorrt-bf16": ("tensorrt_plan", "tensorrt"),
    "tensorrt-sparse": ("tensorrt_plan", "tensorrt"),
}
THREAD_KEYS = ("intra_op_thread_count", "INFERENCE_NUM_THREADS")  # by backend
_DYNAMIC = {"onnxruntime-int8"}  # fixing its batch would change its outputs
# the graph defines int8; the hint applies to the other operators
_OPENVINO_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def model_config(sidecar: EngineSidecar, serving: ServingSpec | None = None) -> str:
    """Text of `config.pbtxt` for the engine.

    Batch 1 and every preferred batch size are warmed up. Otherwise the first request after a swap
    would wait tens of milliseconds.

    Args:
        sidecar: of the engine.
        serving: instances, batching and threads; None: the design's.

    Raises:
        EngineError: Triton has no backend for the engine.
    """
    if sidecar.engine not in SERVABLE:
        raise EngineError(
            f"engine {sidecar.engine} cannot be served by Triton",
            remedy=f"stage one of {', '.join(SERVABLE)}",
        )
    serving = serving or ServingSpec()
    platform, backend = SERVABLE[sidecar.engine]
    on_gpu = sidecar.plan is not None
    warmed = sorted({1, *PREFERRED_BATCH_SIZES, *serving.preferred_batch_sizes})
    kind = pb.ModelInstanceGroup.KIND_GPU if on_gpu else pb.ModelInstanceGroup.KIND_CPU
    config = pb.ModelConfig(
        name=MODEL_NAME,
        platform=platform,
        backend=backend,
        default_model_filename=sidecar.file,
        max_batch_size=sidecar.max_batch,
        input=[
            pb.ModelInput(name=tensor.name, data_type=_dtype(tensor), dims=tensor.shape)
            for tensor in sidecar.inputs
        ],
        output=[
            pb.ModelOutput(name=tensor.name, data_type=_dtype(tensor), dims=tensor.shape)
            for tensor in sidecar.outputs
        ],
        version_policy=pb.ModelVersionPolicy(
            latest=pb.ModelVersionPolicy.Latest(num_versions=VERSIONS_KEPT)
        ),
        instance_group=[pb.ModelInstanceGroup(count=serving.instances, kind=kind)],
        dynamic_batching=pb.ModelDynamicBatching(
            preferred_batch_size=serving.preferred_batch_sizes,
            max_queue_delay_microseconds=serving.queue_delay_us,
        ),
        model_warmup=[_warmup(sidecar, batch) for batch in warmed],
    )
    parameters = _parameters(backend, sidecar, serving.threads or sidecar.threads)
    if not on_gpu:  # only our Python-based backends read it
        parameters["batch_1_graph"] = "dynamic" if sidecar.engine in _DYNAMIC else "fixed"
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return str(text_format.MessageToString(config))


def parse(text: str) -> pb.ModelConfig:
    """Read `config.pbtxt` back.

    Raises:
        EngineError: it is not a model configuration.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise EngineError(f"config.pbtxt is malformed: {error}") from error


def served_as(text: str) -> str:
    """What a `config.pbtxt` says about instances, threads and batching, in words.

    Raises:
        EngineError: it is not a model configuration.
    """
    config = parse(text)
    threads = next(
        (config.parameters[key].string_value for key in THREAD_KEYS if key in config.parameters), ""
    )
    serving = ServingSpec(
        instances=sum(group.count for group in config.instance_group),
        queue_delay_us=config.dynamic_batching.max_queue_delay_microseconds,
        preferred_batch_sizes=tuple(config.dynamic_batching.preferred_batch_size),
        threads=int(threads) if threads else None,
    )
    return serving.text


def _parameters(backend: str, sidecar: EngineSidecar, threads: int) -> dict[str, str]:
    if backend == "onnxruntime":
        return {"intra_op_thread_count": str(threads), "inter_op_thread_count": "1"}
    if backend == "openvino":
        parameters = {
            # a request wakes the model's process on any core; pinned, it would have to migrate
            "ENABLE_CPU_PINNING": "NO",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": _OPENVINO_HINTS[sidecar.precision],
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
        }
        # NVIDIA's backend supports only this switch and ignores INFERENCE_PRECISION_HINT
        return parameters | ({"HINT_BF16": "YES"} if sidecar.precision == "bf16" else {})
    return {}


def _warmup(sidecar: EngineSidecar, batch: int) -> pb.ModelWarmup:
    warmup = pb.ModelWarmup(name=f"batch {batch}", batch_size=batch)
    for tensor in sidecar.inputs:
        entry = warmup.inputs[tensor.name]
        entry.data_type = _dtype(tensor)
        entry.dims.extend(tensor.shape)
        entry.zero_data = True
    return warmup


def _dtype(tensor: TensorSpec) -> int:
    return int(pb.DataType.Value(f"TYPE_{tensor.dtype}"))
