import pytest
from tritonclient.grpc import model_config_pb2 as pb

from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar, PlanFacts, TensorSpec
from model_code.errors import EngineError
from model_code.repository.triton_config import SERVABLE, model_config, parse

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


def sidecar(engine: str) -> EngineSidecar:
    on_gpu = engine.startswith("tensorrt")
    dtype = "FP16" if on_gpu else "FP32"
    return EngineSidecar(
        engine=engine,
        library=engine.partition("-")[0],
        library_version="1",
        precision=ENGINES[engine].precision if engine in ENGINES else "fp32",
        device="a device",
        file="model.plan" if on_gpu else "model.onnx",
        sha256="0" * 64,
        onnx_sha256="1" * 64,
        inputs=(TensorSpec(name="input__0", dtype=dtype, shape=(64, 16)),),
        outputs=(TensorSpec(name="output__0", dtype=dtype, shape=(2,)),),
        max_batch=64,
        threads=2,
        system="Linux x86_64",
        flops=1000,
        build_seconds=1.0,
        parity_error=0.0,
        plan=PLAN if on_gpu else None,
    )


@pytest.mark.parametrize("engine", sorted(SERVABLE))
def test_every_servable_engine_has_a_complete_configuration(engine):
    config = parse(model_config(sidecar(engine)))
    assert config.name == "financial_predictor"
    assert (config.platform, config.backend) == SERVABLE[engine]
    assert config.max_batch_size == 64
    assert [(i.name, list(i.dims)) for i in config.input] == [("input__0", [64, 16])]
    assert [(o.name, list(o.dims)) for o in config.output] == [("output__0", [2])]
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16, 32]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert config.version_policy.latest.num_versions == 2
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 8, 16, 32]
    for warmup in config.model_warmup:
        assert warmup.inputs["input__0"].data_type == config.input[0].data_type
        assert list(warmup.inputs["input__0"].dims) == [64, 16]
        assert warmup.inputs["input__0"].zero_data


def test_cpu_engines_speak_fp32_and_tensorrt_fp16():
    cpu, gpu = (parse(model_config(sidecar(name))) for name in ("openvino-bf16", "tensorrt-fp16"))
    assert cpu.input[0].data_type == cpu.output[0].data_type == pb.TYPE_FP32
    assert gpu.input[0].data_type == gpu.output[0].data_type == pb.TYPE_FP16
    assert cpu.instance_group[0].kind == pb.ModelInstanceGroup.KIND_CPU
    assert gpu.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert (cpu.default_model_filename, gpu.default_model_filename) == ("model.onnx", "model.plan")


@pytest.mark.parametrize(("engine", "hint"), [("openvino-fp32", "f32"), ("openvino-bf16", "bf16")])
def test_openvinos_precision_is_written_into_the_configuration(engine, hint):
    parameters = parse(model_config(sidecar(engine))).parameters
    assert parameters["INFERENCE_PRECISION_HINT"].string_value == hint
    assert parameters["PERFORMANCE_HINT"].string_value == "LATENCY"
    assert parameters["INFERENCE_NUM_THREADS"].string_value == "2"
    assert ("HINT_BF16" in parameters) is (hint == "bf16")


def test_onnx_runtimes_threads_are_written_into_the_configuration():
    parameters = parse(model_config(sidecar("onnxruntime-fp32"))).parameters
    assert parameters["intra_op_thread_count"].string_value == "2"
    assert parameters["inter_op_thread_count"].string_value == "1"


def test_the_text_is_the_same_each_time():
    assert model_config(sidecar("openvino-bf16")) == model_config(sidecar("openvino-bf16"))


def test_an_engine_without_a_backend_is_refused():
    with pytest.raises(EngineError, match="torch-fp32 cannot be served"):
        model_config(sidecar("torch-fp32"))


def test_a_malformed_configuration_is_refused():
    with pytest.raises(EngineError, match="malformed"):
        parse("name: 5 {")
