"""Gradient boosting as part of a network's graph: fitted trees as tensors.

Every tree is walked from its root, all windows and trees at once, one level per step. That needs
gathers and comparisons only; the CPU engines have them, TensorRT was not run. Why our own:
docs/decisions/trees-as-tensors.md. Source: Nakandala et al. 2020, "A Tensor Compiler for Unified
Machine Learning Prediction Serving" (perfect tree traversal).

Shapes: B windows, G summary columns, K trees, P nodes of the largest tree.
"""

from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

from model_code.errors import ExportError

TABLES = ("column_KP", "threshold_KP", "left_KP", "right_KP", "value_KP", "start")
PARITY = 1e-5  # of a log-odds, FP32 against scikit-learn's FP64


class TreeEnsemble(nn.Module):
    """Log-odds of class 1 from summary columns; zero before any trees are set.

    Attributes:
        levels: steps from a root to the deepest leaf.
    """

    column_KP: Tensor
    threshold_KP: Tensor
    left_KP: Tensor
    right_KP: Tensor
    value_KP: Tensor
    start: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._set(*(np.zeros((0, 1)) for _ in TABLES[:-1]), start=0.0)

    def forward(self, x_BG: Tensor) -> Tensor:
        """Log-odds (B,) of raw summaries (float32)."""
        tree_K = torch.arange(self.column_KP.shape[0], device=x_BG.device)
        shape = (x_BG.shape[0], self.column_KP.shape[0])  # len() would fix the batch in an export
        node_BK = torch.zeros(shape, dtype=torch.int64, device=x_BG.device)
        for _ in range(self.levels):
            x_BK = x_BG.gather(1, self.column_KP[tree_K, node_BK])
            node_BK = torch.where(
                x_BK <= self.threshold_KP[tree_K, node_BK],
                self.left_KP[tree_K, node_BK],
                self.right_KP[tree_K, node_BK],
            )
        found_B: Tensor = self.start + self.value_KP[tree_K, node_BK].sum(dim=1)
        return found_B

    def logits(self, x_BG: Tensor) -> Tensor:
        """The log-odds as logits_BC (0, log-odds)."""
        odds_B = self(x_BG)
        return torch.stack([torch.zeros_like(odds_B), odds_B], dim=1)

    def copy_from(self, model: HistGradientBoostingClassifier, x_BG: np.ndarray) -> None:
        """Take the trees of a fitted model.

        Args:
            model: fitted, without missing values and categories.
            x_BG: float32 summaries on which both must agree.

        Raises:
            ExportError: the log-odds differ from the model's own.
        """
        # scikit-learn has no public access to the nodes; parity is checked below
        trees = [stage[0].nodes for stage in model._predictors]
        shape = (len(trees), max(map(len, trees)))
        left, right = (np.tile(np.arange(shape[1]), (shape[0], 1)) for _ in "lr")  # a leaf stays
        column, value = np.zeros(shape, np.int64), np.zeros(shape)
        threshold = np.full(shape, np.inf)
        for k, nodes in enumerate(trees):
            inner = np.flatnonzero(nodes["is_leaf"] == 0)
            column[k, inner] = nodes["feature_idx"][inner]
            threshold[k, inner] = _float32_below(nodes["num_threshold"][inner])
            left[k, inner], right[k, inner] = nodes["left"][inner], nodes["right"][inner]
            value[k, : len(nodes)] = np.where(nodes["is_leaf"] == 1, nodes["value"], 0.0)
        self._set(
            column, threshold, left, right, value, start=float(model._baseline_prediction.item())
        )
        with torch.inference_mode():
            found_B = self(torch.from_numpy(x_BG)).numpy()
        error = float(np.abs(found_B - model.decision_function(x_BG)).max())
        if error > PARITY:
            raise ExportError(
                f"the trees as tensors differ from gradient boosting by {error:.2e} in log-odds",
                remedy="go back to the locked scikit-learn: make clean setup",
            )

    def _set(
        self,
        column_KP: np.ndarray,
        threshold_KP: np.ndarray,
        left_KP: np.ndarray,
        right_KP: np.ndarray,
        value_KP: np.ndarray,
        *,
        start: float,
    ) -> None:
        for name, table in (("column_KP", column_KP), ("left_KP", left_KP), ("right_KP", right_KP)):
            self.register_buffer(name, torch.from_numpy(table.astype(np.int64)))
        for name, table in (("threshold_KP", threshold_KP), ("value_KP", value_KP)):
            self.register_buffer(name, torch.from_numpy(table.astype(np.float32)))
        self.register_buffer("start", torch.tensor(start, dtype=torch.float32))
        self.levels = _depth(left_KP, right_KP)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # the tables' sizes are those of the fitted trees, which a new module does not know
        for name in TABLES:
            if prefix + name in state_dict:
                self.register_buffer(name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.levels = _depth(self.left_KP.numpy(), self.right_KP.numpy())


def _float32_below(values: np.ndarray) -> np.ndarray:
    """The largest float32 not above each value: `x <= value` is then the same for float32 x."""
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _depth(left_KP: np.ndarray, right_KP: np.ndarray) -> int:
    """Steps after which every walk stands on a leaf; a leaf leads to itself."""
    left_KP, right_KP = left_KP.astype(np.int64), right_KP.astype(np.int64)
    inner_KP = left_KP != np.arange(left_KP.shape[1])
    reached_KP = np.zeros(left_KP.shape, np.bool_)
    reached_KP[:, 0] = True
    steps = 0
    while (active_KP := reached_KP & inner_KP).any():
        tree, node = np.nonzero(active_KP)
        reached_KP = np.zeros_like(reached_KP)
        reached_KP[tree, left_KP[tree, node]] = True
        reached_KP[tree, right_KP[tree, node]] = True
        steps += 1
    return steps
