"""Export of a model with trees as ONNX with one tree node, which ONNX Runtime computes fastest.

`graph.export_onnx` writes trees as gathers and comparisons, which every engine reads. This form is
for ONNX Runtime alone. It is shorter elsewhere too: one product gives all summaries, and the weight
of each part is in its last layer. That product is in FP64, as where the
trees were fitted: FP32 sums in another order took another branch on 4 of 20,000 windows of the
reference ticks.

Shapes: B windows, T steps (64), F features (16), S rows of the summary product (7),
G = S x F summary columns, C classes (2), K trees, P nodes of the largest tree.
Source: ONNX, domain ai.onnx.ml version 3, TreeEnsembleRegressor.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model_code.export.graph import ExportReport, export_onnx
from model_code.models.blend import Blend
from model_code.models.boosting import Boosting
from model_code.models.mlp import SummaryMlp
from model_code.models.predictor import WindowModel
from model_code.models.summaries import LAGS, SPANS
from model_code.models.trees import TreeEnsemble
from model_code.settings import CLASS_COUNT, ONNX_ML_OPSET, SEQUENCE_LENGTH

TREE_NODE = "TreeEnsembleRegressor"


def export_native(model: WindowModel, example_BTF: np.ndarray, path: Path) -> ExportReport | None:
    """Write the form with one tree node; None, and no file, for a model without trees.

    Args:
        model: in evaluation mode.
        example_BTF: real raw windows, two or more.
        path: file to write, atomically.

    Raises:
        ExportError: as in `graph.export_onnx`.
        StorageError: the file cannot be written.
    """
    if not isinstance(model, Blend | Boosting) or model.trees.levels == 0:
        return None
    return export_onnx(model, example_BTF, path, form=_NativeForm(model).eval())


class _NativeForm(nn.Module):
    """The model's logits by other operators; for the exporter only, the tree node has no kernel."""

    mlp: SummaryMlp | None
    summary_ST: Tensor

    def __init__(self, model: Blend | Boosting) -> None:
        super().__init__()
        self.register_buffer("summary_ST", torch.from_numpy(_summary_product()))
        self.mlp, weight = None, 0.0  # of the perceptrons
        if isinstance(model, Blend):
            self.mlp, weight = copy.deepcopy(model.mlp), model.weight
            with torch.no_grad():
                for member in self.mlp.members:
                    for parameter in list(member.children())[-1].parameters():
                        parameter.mul_(weight)
        self.attributes = _attributes(model.trees, 1.0 - weight)

    def forward(self, x_BTF: Tensor) -> Tensor:
        x_BG = (self.summary_ST @ x_BTF.double()).float().flatten(1)
        trees_BC = torch.onnx.ops.symbolic(
            f"ai.onnx.ml::{TREE_NODE}",
            (x_BG,),
            self.attributes,
            dtype=torch.float32,
            shape=(x_BG.shape[0], CLASS_COUNT),
            version=ONNX_ML_OPSET,
        )
        return trees_BC if self.mlp is None else self.mlp.of_summaries(x_BG) + trees_BC


def _summary_product() -> np.ndarray:
    """The (S, T) matrix whose product with a window is its summaries, row by row."""
    rows_ST = np.zeros((1 + len(LAGS) + len(SPANS), SEQUENCE_LENGTH))
    for row_T, lag in zip(rows_ST, (0, *LAGS), strict=False):
        row_T[-1 - lag] = 1.0
    for row_T, span in zip(rows_ST[1 + len(LAGS) :], SPANS, strict=True):
        row_T[-span:] = 1.0 / span
    return rows_ST


def _attributes(trees: TreeEnsemble, factor: float) -> dict[str, Any]:
    """The tree node's attributes: class 0 gets 0, class 1 `factor` times the log-odds."""
    column_KP, threshold_KP, left_KP, right_KP, value_KP = (
        table.cpu().numpy()
        for table in (
            trees.column_KP,
            trees.threshold_KP,
            trees.left_KP,
            trees.right_KP,
            trees.value_KP,
        )
    )
    inner_KP = left_KP != np.arange(left_KP.shape[1])  # a leaf leads to itself
    tree, node = np.nonzero(inner_KP)
    used_KP = np.zeros_like(inner_KP)  # the tables are padded to the largest tree
    used_KP[:, 0] = True
    used_KP[tree, left_KP[tree, node]] = used_KP[tree, right_KP[tree, node]] = True
    tree_N, node_N = np.nonzero(used_KP)
    inner_N = inner_KP[used_KP]
    leaf_KP = used_KP & ~inner_KP
    tree_L, node_L = np.nonzero(leaf_KP)

    def at_inner(table_KP: np.ndarray) -> list[Any]:
        return list(np.where(inner_N, table_KP[used_KP], 0).tolist())

    return {
        "nodes_treeids": tree_N.tolist(),
        "nodes_nodeids": node_N.tolist(),
        "nodes_featureids": at_inner(column_KP),
        "nodes_modes": np.where(inner_N, "BRANCH_LEQ", "LEAF").tolist(),
        "nodes_values": at_inner(threshold_KP),
        "nodes_truenodeids": at_inner(left_KP),
        "nodes_falsenodeids": at_inner(right_KP),
        "target_treeids": tree_L.tolist(),
        "target_nodeids": node_L.tolist(),
        "target_ids": [1] * len(tree_L),
        "target_weights": (factor * value_KP[leaf_KP].astype(np.float64)).tolist(),
        "n_targets": CLASS_COUNT,
        "base_values": [0.0, factor * trees.start.item()],
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }
