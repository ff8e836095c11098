import collections

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from model_code.engines.tensorrt_builder import FP32_OPERATORS, PROFILE, build_plan, to_half
from model_code.errors import EngineError
from model_code.settings import INPUT_NAME, OUTPUT_NAME

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


@pytest.fixture(scope="module")
def half(source):
    return to_half(source.onnx)


@pytest.fixture(scope="module")
def rtx():
    # the same builder, network and parser as TensorRT's, and it runs without a GPU
    return pytest.importorskip("tensorrt_rtx")


def test_norms_softmax_and_mean_stay_fp32_and_the_rest_is_half(half):
    typed = onnx.shape_inference.infer_shapes(half)
    values = [*typed.graph.value_info, *typed.graph.input, *typed.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    by_operator = collections.defaultdict(set)
    for node in half.graph.node:
        by_operator[node.op_type].add(types[node.input[0]])
    for operator in FP32_OPERATORS:
        assert by_operator[operator] == {FLOAT}
    for operator in ("MatMul", "Conv", "Gemm"):
        assert by_operator[operator] == {HALF}
    assert by_operator["Div"] == {FLOAT}  # standardisation
    assert (types[INPUT_NAME], types[OUTPUT_NAME]) == (HALF, HALF)


def test_half_answers_near_fp32(source, half, x_BTF, expected_BC):
    session = ort.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    answer_BC = session.run([OUTPUT_NAME], {INPUT_NAME: x_BTF.astype(np.float16)})[0]
    assert answer_BC.dtype == np.float16
    np.testing.assert_allclose(answer_BC, expected_BC, atol=0.02)


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_a_half_plan_is_built_and_its_layers_counted(rtx, half):
    plan = build_plan(rtx, half.SerializeToString())
    assert len(plan.data) > 10_000
    assert plan.half_layers > plan.float_layers > 0
    assert "TF32" not in plan.flags
    assert len(plan.timing_cache_sha256) == 64


def test_a_plan_without_half_layers_is_an_error(rtx, source):
    with pytest.raises(EngineError, match="holds no FP16 layer"):
        build_plan(rtx, source.onnx.read_bytes())


def test_a_graph_the_parser_refuses_is_an_error_with_its_words(rtx, half):
    with pytest.raises(EngineError, match=r"parser refuses the graph: .*ParseFrom"):
        build_plan(rtx, half.SerializeToString()[:5000])


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_an_impossible_profile_is_an_error_with_the_builders_words(rtx, half):
    with pytest.raises(EngineError, match="MIN<=OPT<=MAX"):
        build_plan(rtx, half.SerializeToString(), profile=(8, 4, 64))


def test_the_profile_covers_every_batch_the_server_may_send():
    assert PROFILE == (1, 32, 64)


def test_a_conversion_that_breaks_the_graph_is_an_error(source, monkeypatch):
    def broken(model, **_options):
        model.graph.node[0].input[0] = "nowhere"
        return model

    monkeypatch.setattr(
        "model_code.engines.tensorrt_builder.float16.convert_float_to_float16", broken
    )
    with pytest.raises(EngineError, match="FP16 conversion broke the graph"):
        to_half(source.onnx)
