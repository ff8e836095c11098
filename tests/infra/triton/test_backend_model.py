"""The Python-based backend without a server: a model with several inputs."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

SHAPES = {"one": (3,), "other": (2, 3)}


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    name = "triton_python_backend_utils"
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    from infra.triton import backend_model

    class Utilities:
        TritonModelException = RuntimeError

    monkeypatch.setattr(backend_model, "pb_utils", Utilities)
    return backend_model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A graph with inputs of two shapes: the first times the sum over rows of the second."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in SHAPES.items()
    ]
    output = helper.make_tensor_value_info("product", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["other", "rows"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["one", "sum"], ["product"]),
        ],
        "product",
        inputs,
        [output],
        [helper.make_tensor("rows", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("batch", [1, 5])
def test_packed_inputs_reach_the_graph_in_their_shapes(
    batch: int, backend: Any, path: Path
) -> None:
    rng = np.random.default_rng(2)
    one_BN = rng.normal(size=(batch, 3)).astype(np.float32)
    other_BRN = rng.normal(size=(batch, 2, 3)).astype(np.float32)
    run = backend._several_inputs("onnxruntime", path, {}, SHAPES)
    packed = np.concatenate([one_BN, other_BRN.reshape(batch, -1)], axis=1)
    np.testing.assert_allclose(run(packed), one_BN * other_BRN.sum(axis=1), rtol=1e-6)


def test_another_library_takes_one_input_only(backend: Any, path: Path) -> None:
    with pytest.raises(RuntimeError, match="openvino takes models of one input only"):
        backend._several_inputs("openvino", path, {}, SHAPES)
