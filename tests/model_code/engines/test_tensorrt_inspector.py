"""The precision of a built engine, from layer information as TensorRT 10 writes it."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from model_code.engines.tensorrt_graph import FP32_OPERATORS, to_half
from model_code.engines.tensorrt_inspector import (
    PRODUCTS,
    BuiltLayer,
    built_layers,
    products_of,
    require_types,
)
from model_code.errors import EngineError

TRT = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON="json"))


def tensors(*types: str) -> list[dict[str, str]]:
    return [{"Name": "t", "Format/Datatype": written} for written in types]


def layer(
    name: str, sources: list[str], inputs: list[str], outputs: list[str], weights: str = ""
) -> dict[str, Any]:
    """One layer in the inspector's words."""
    return {
        "Name": name,
        "LayerType": "gemm",
        "Inputs": tensors(*inputs),
        "Outputs": tensors(*outputs),
        "Metadata": "\x1f".join(f"[ONNX Layer: {source}]" for source in sources),
        **({"Weights": {"Type": weights, "Count": 64}} if weights else {}),
    }


HALF = [
    layer("standardise", ["Sub_0"], ["Half"], ["Float"]),
    layer("products", ["MatMul_1", "Add_2"], ["Half", "Half"], ["Half"]),
    layer("norm", ["LayerNormalization_3"], ["Half"], ["Float"]),
    layer("dynamic", ["Conv_4"], [], ["N/A due to dynamic shapes"], weights="Half"),
    layer("copy", [], ["Row major linear FP16 format"], ["Row major linear FP32"]),
]
WANTED = frozenset({"MatMul_1", "Conv_4"})


class Engine:
    """Reports these layers, if its inspector was given the context."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.execution_context: object = None

    def create_engine_inspector(self) -> "Engine":
        return self

    def get_engine_information(self, form: str) -> str:
        assert form == "json"
        assert self.execution_context == "context"
        return self.text


def inspected(layers: list[Any]) -> tuple[BuiltLayer, ...]:
    return built_layers(TRT, Engine(json.dumps({"Layers": layers, "Bindings": []})), "context")


def test_types_are_read_in_every_wording() -> None:
    found = inspected(HALF)
    assert [one.types for one in found] == [
        {"HALF", "FLOAT"}, {"HALF"}, {"HALF", "FLOAT"}, {"HALF"}, {"HALF", "FLOAT"},
    ]  # fmt: skip
    assert [one.output for one in found] == ["FLOAT", "HALF", "FLOAT", "OTHER", "FLOAT"]
    assert found[1].nodes == {"MatMul_1", "Add_2"}
    words = ("BFloat16", "Row major linear BF16 format", "Int8", "Int64", "Int32", "Bool")
    found = inspected([layer("every", [], list(words), ["Float"])])
    assert found[0].types == {"BF16", "INT8", "INT64", "INT32", "BOOL", "FLOAT"}


def test_an_engine_in_half_is_accepted_and_its_layers_are_counted() -> None:
    assert require_types(inspected(HALF), WANTED, "HALF") == {"FLOAT": 3, "HALF": 1, "OTHER": 1}


def test_one_product_that_the_builder_left_in_fp32_is_an_error() -> None:
    float_product = layer("slow", ["MatMul_9"], ["Float", "Float"], ["Float"], weights="Float")
    with pytest.raises(EngineError, match=r"1 layers .* not computed in HALF: slow in FLOAT"):
        require_types(inspected([*HALF, float_product]), WANTED | {"MatMul_9"}, "HALF")


def test_an_fp32_engine_has_no_16_bit_tensor_anywhere() -> None:
    exact = [layer("products", ["MatMul_1"], ["Float"], ["Float"])]
    assert require_types(inspected(exact), WANTED, "FLOAT") == {"FLOAT": 1}
    with pytest.raises(EngineError, match=r"not computed in FLOAT: copy in BF16, FLOAT"):
        require_types(
            inspected([*exact, layer("copy", [], ["BFloat16"], ["Float"])]), WANTED, "FLOAT"
        )


def test_an_engine_that_names_no_product_proves_nothing() -> None:
    with pytest.raises(EngineError, match="none of the 2 matrix products is named"):
        require_types(inspected(HALF[:1]), WANTED, "HALF")


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", json.dumps({"Layers": ["name only"]}), json.dumps({}), '{"Layers": [{}]}'],
)
def test_without_details_the_precision_is_unproved(text: str) -> None:
    with pytest.raises(EngineError, match="no detailed layer information"):
        built_layers(TRT, Engine(text), "context")


def test_an_engine_without_layers_proves_nothing() -> None:
    with pytest.raises(EngineError, match="reports no layer"):
        inspected([])


def test_products_are_those_of_the_typed_graph(source: Any) -> None:
    graph = to_half(source.onnx)
    found = products_of(graph, without=FP32_OPERATORS)
    kinds = {node.name: node.op_type for node in graph.graph.node}
    assert {kinds[name] for name in found} <= set(PRODUCTS)
    assert len(found) == sum(kind in PRODUCTS for kind in kinds.values()) > 5
    convolutions = {name for name, kind in kinds.items() if kind == "Conv"}
    assert products_of(graph, without=("Conv",)) == found - convolutions
