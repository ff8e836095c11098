"""The parts of a blend as ONNX graphs of their own, and the graph of their weighted sum.

Shapes: B windows, T steps (64), F features (16), C classes (2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model_code.artifacts import atomic_file
from model_code.errors import EngineError
from model_code.export.graph import BATCH_DIM, export_onnx
from model_code.export.trees import export_native
from model_code.models import network
from model_code.models.blend import Blend
from model_code.models.boosting import Boosting
from model_code.models.predictor import WindowModel
from model_code.settings import CLASS_COUNT, ONNX_OPSET, OUTPUT_NAME, BoostingSpec


@dataclass(frozen=True)
class Part:
    """One part of a blend.

    Attributes:
        name: mlp or trees.
        weight: of its logits in the sum.
        network: raw windows (B, 64, 16) to logits (B, 2), in evaluation mode.
        flops: of one window, matrix products only.
    """

    name: str
    weight: float
    network: WindowModel
    flops: int

    @property
    def logits(self) -> str:
        """Name of its logits in the graphs that take them."""
        return f"logits__{self.name}"


def parts(model: WindowModel) -> tuple[Part, ...]:
    """The parts of a blend, perceptrons first; their weights add up to 1.

    Raises:
        EngineError: the model is no blend, or a blend without trees.
    """
    if not isinstance(model, Blend) or model.trees.levels == 0:
        kind = "blend without trees" if isinstance(model, Blend) else model.spec.KIND
        raise EngineError(
            f"a model of kind {kind} has no parts to serve one by one: only a blend has",
            remedy="serve it as it is, or train a blend: tickline nightly --network blend",
        )
    boosting = Boosting(BoostingSpec(trees=model.spec.trees))
    boosting.trees = model.trees
    flops = network.flops_per_window(model.spec)
    return (
        Part("mlp", model.weight, model.mlp.eval(), flops),
        Part("trees", 1.0 - model.weight, boosting.eval(), 0),
    )


def export_fastest(
    model: WindowModel, example_BTF: np.ndarray, path: Path, before: Part | None = None
) -> float:
    """Write a network as ONNX Runtime computes it fastest; return its parity error.

    Args:
        model: in evaluation mode.
        example_BTF: real raw windows, two or more.
        path: file to write, atomically.
        before: a part whose logits become an input, too, that the graph does not use.

    Raises:
        ExportError: as in `graph.export_onnx`.
        StorageError: the file cannot be written.
    """
    report = export_native(model, example_BTF, path) or export_onnx(model, example_BTF, path)
    if before is not None:
        graph = onnx.load(path)
        graph.graph.input.append(_value(before.logits))
        _save(graph, path)
    return report.parity_error


def export_sum(split: Sequence[Part], path: Path) -> None:
    """Write the graph from the logits (B, 2) of each part to their weighted sum (B, 2), in FP32.

    Raises:
        StorageError: the file cannot be written.
    """
    weights = {part.logits: f"weight of {part.name}" for part in split}
    graph = helper.make_graph(
        [
            *(
                helper.make_node("Mul", [part.logits, weights[part.logits]], [part.name])
                for part in split
            ),
            helper.make_node("Sum", [part.name for part in split], [OUTPUT_NAME]),
        ],
        "weighted sum",
        [_value(part.logits) for part in split],
        [_value(OUTPUT_NAME)],
        [
            numpy_helper.from_array(np.array(part.weight, np.float32), weights[part.logits])
            for part in split
        ],
    )
    opsets = [helper.make_opsetid("", ONNX_OPSET)]
    version = helper.find_min_ir_version_for(opsets)
    _save(helper.make_model(graph, opset_imports=opsets, ir_version=version), path)


def _value(name: str) -> onnx.ValueInfoProto:
    """Logits as an input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH_DIM, CLASS_COUNT])


def _save(graph: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(graph, full_check=True)
    with atomic_file(path) as temporary:
        onnx.save(graph, temporary)
