from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from model_code.errors import EngineError
from model_code.repository.triton_config import SERVABLE, model_config, parse, served_as
from model_code.settings import ServingSpec
from tests.support.sidecar import sidecar


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


def test_cpu_engines_use_fp32_and_tensorrt_fp16():
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


def test_the_text_is_byte_for_byte_the_recorded_one():
    """Staged files are hashed, so an unintended change of the text must be noticed."""
    recorded = Path(__file__).with_name("openvino-bf16.pbtxt")
    assert model_config(sidecar("openvino-bf16")) == recorded.read_text()


def test_an_engine_without_a_backend_is_refused():
    with pytest.raises(EngineError, match="torch-fp32 cannot be served"):
        model_config(sidecar("torch-fp32"))


def test_a_malformed_configuration_is_refused():
    with pytest.raises(EngineError, match="malformed"):
        parse("name: 5 {")


@pytest.mark.parametrize("engine", ["onnxruntime-fp32", "openvino-fp32"])
def test_serving_settings_are_written_into_the_configuration(engine):
    serving = ServingSpec(instances=2, queue_delay_us=250, preferred_batch_sizes=(4, 16), threads=3)
    config = parse(model_config(sidecar(engine), serving))
    assert [group.count for group in config.instance_group] == [2]
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 16]
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 4, 8, 16, 32]
    threads = {
        "onnxruntime-fp32": "intra_op_thread_count",
        "openvino-fp32": "INFERENCE_NUM_THREADS",
    }
    assert config.parameters[threads[engine]].string_value == "3"
    assert served_as(model_config(sidecar(engine), serving)) == serving.text


def test_without_preferred_sizes_batches_are_still_formed():
    config = parse(model_config(sidecar("onnxruntime-fp32"), ServingSpec(preferred_batch_sizes=())))
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.preferred_batch_size


def test_a_plan_on_a_gpu_has_no_threads():
    assert "threads the engine's" in served_as(model_config(sidecar("tensorrt-fp16")))
