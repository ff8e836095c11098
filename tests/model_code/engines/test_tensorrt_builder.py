import collections

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from model_code.engines.quantisation import feed_forward_products
from model_code.engines.tensorrt_builder import PROFILE, build_plan, trtexec_command
from model_code.engines.tensorrt_graph import (
    FP32_OPERATORS,
    RECIPES,
    to_bfloat,
    to_half,
    to_sparse_half,
    two_of_four,
)
from model_code.errors import EngineError
from model_code.settings import (
    INPUT_NAME,
    MAX_BATCH_SIZE,
    OUTPUT_NAME,
    PREFERRED_BATCH_SIZES,
)

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
BFLOAT = onnx.TensorProto.BFLOAT16


def run(graph, x_BTF):
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([OUTPUT_NAME], {INPUT_NAME: x_BTF})[0]


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


def test_half_is_close_to_fp32(source, half, x_BTF, expected_BC):
    answer_BC = run(half, x_BTF.astype(np.float16))
    assert answer_BC.dtype == np.float16
    np.testing.assert_allclose(answer_BC, expected_BC, atol=0.02)


QUIET = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")


@QUIET
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_plan_of_each_precision_is_built_and_its_layers_counted(rtx, source, name):
    recipe = RECIPES[name]
    graph = recipe.convert(source.onnx).SerializeToString()
    plan = build_plan(rtx, graph, layer_type=recipe.layer_type, sparse=recipe.sparse)
    assert len(plan.data) > 10_000
    expected = {"FLOAT", "INT64", recipe.layer_type}
    assert set(plan.layers) == expected
    assert plan.layers[recipe.layer_type] >= plan.layers["FLOAT"] > 0
    assert plan.flags == (("SPARSE_WEIGHTS",) if recipe.sparse else ())  # and no TF32
    assert plan.timing_cache
    again = build_plan(
        rtx, graph, layer_type=recipe.layer_type, timing_cache=plan.timing_cache + b"torn"
    )
    assert again.layers == plan.layers


@pytest.mark.parametrize("layer_type", ["HALF", "BF16"])
def test_a_plan_without_layers_of_its_type_is_an_error(rtx, source, layer_type):
    with pytest.raises(EngineError, match=f"has no {layer_type} layer; its layers: .* FLOAT"):
        build_plan(rtx, source.onnx.read_bytes(), layer_type=layer_type)


def test_an_fp32_plan_has_no_half_layers(rtx, half):
    with pytest.raises(EngineError, match=r"FP32 plan has 16-bit layers: .* HALF"):
        build_plan(rtx, half.SerializeToString(), layer_type="FLOAT")


def test_bfloat_weights_are_close_to_fp32_and_the_input_stays_fp32(source, x_BTF, expected_BC):
    graph = to_bfloat(source.onnx)
    types = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    assert BFLOAT in types.values()
    assert HALF not in types.values()
    assert [value.type.tensor_type.elem_type for value in graph.graph.input] == [FLOAT]
    # no CPU engine runs BF16 products: round the same weights, compute them in FP32
    rounded = onnx.load(source.onnx)
    for tensor in rounded.graph.initializer:
        if types.get(tensor.name) == BFLOAT:
            value = onnx.numpy_helper.to_array(
                next(other for other in graph.graph.initializer if other.name == tensor.name)
            )
            value = value.astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    np.testing.assert_allclose(run(rounded, x_BTF), expected_BC, atol=0.1)


def test_the_two_larger_of_four_weights_are_kept():
    weight = np.array([[1.0], [-4.0], [3.0], [0.5], [2.0], [2.0], [2.0], [9.0]], np.float32)
    assert two_of_four(weight)[:, 0].tolist() == [0, -4, 3, 0, 0, 0, 2, 9]
    with pytest.raises(EngineError, match="6 inputs"):
        two_of_four(np.ones((6, 2), np.float32))


def test_only_feed_forward_weights_are_made_sparse(source):
    before = onnx.load(source.onnx)
    graph = to_sparse_half(source.onnx)
    zeros = {
        tensor.name: float((onnx.numpy_helper.to_array(tensor) == 0).mean())
        for tensor in graph.graph.initializer
    }
    products = feed_forward_products(before)
    sparse = {node.input[1] for node in before.graph.node if node.name in products}
    assert len(sparse) == 4
    assert {zeros[name] for name in sparse} == {0.5}
    others = [node.input[1] for node in before.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert all(zeros.get(name, 0.0) < 0.1 for name in set(others) - sparse)


def test_the_trtexec_command_has_the_builders_settings():
    command = trtexec_command("typed.onnx", "model.plan", "timing.cache", sparse=True)
    assert "--minShapes=input__0:1x64x16 --optShapes=input__0:32x64x16" in command
    assert "--maxShapes=input__0:64x64x16 --memPoolSize=workspace:4096M" in command
    assert "--sparsity=enable" in command
    assert "--profilingVerbosity=detailed --timingCacheFile=timing.cache" in command
    dense = trtexec_command("typed.onnx", "model.plan", "timing.cache", sparse=False)
    assert "--sparsity" not in dense


def test_a_graph_the_parser_refuses_is_an_error_with_its_message(rtx, half):
    with pytest.raises(EngineError, match=r"parser refuses the graph: .*ParseFrom"):
        build_plan(rtx, half.SerializeToString()[:5000], layer_type="HALF")


@QUIET
def test_an_impossible_profile_is_an_error_with_the_builders_message(rtx, half):
    with pytest.raises(EngineError, match="MIN<=OPT<=MAX"):
        build_plan(rtx, half.SerializeToString(), layer_type="HALF", profile=(8, 4, 64))


def test_the_profile_covers_every_batch_the_server_may_send():
    smallest, best, largest = PROFILE
    assert smallest == 1
    assert best in PREFERRED_BATCH_SIZES
    assert largest == MAX_BATCH_SIZE


def test_a_conversion_that_breaks_the_graph_is_an_error(source, monkeypatch):
    def broken(model, **_options):
        model.graph.node[0].input[0] = "nowhere"
        return model

    monkeypatch.setattr(
        "model_code.engines.tensorrt_graph.float16.convert_float_to_float16", broken
    )
    with pytest.raises(EngineError, match="conversion to 16 bits broke the graph"):
        to_half(source.onnx)
