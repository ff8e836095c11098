"""Predictions of a network for many windows of one feature table. B windows, N table rows."""

from itertools import chain

import numpy as np
import torch
from torch import nn

from model_code.features.column import Column
from model_code.features.windows import gather, require_finite
from model_code.models.network import flops_per_window
from model_code.models.predictor import WindowModel
from model_code.models.probability import probability
from model_code.training.metrics import classification

BATCH = 64  # larger batches exceed a CPU's cache and are not faster
SMALL_BATCH = 2048  # of a network with little arithmetic, whose calls cost more than its work
SMALL_FLOPS = 1_000_000  # per window


def predict(model: nn.Module, features_NF: Column, ends_B: np.ndarray) -> np.ndarray:
    """Logits (B, 2) float32 of the windows ending at `ends_B`, in FP32 on the network's device.

    Raises:
        DataError: a window contains NaN or infinity.
    """
    model.eval()
    batch = BATCH
    if isinstance(model, WindowModel) and flops_per_window(model.spec) < SMALL_FLOPS:
        batch = SMALL_BATCH
    device = next(chain(model.parameters(), model.buffers())).device
    chunks = []
    with torch.inference_mode():
        for start in range(0, len(ends_B), batch):
            x_BTF = gather(features_NF, ends_B[start : start + batch])
            require_finite(x_BTF)
            chunks.append(model(torch.from_numpy(x_BTF).to(device)))
        return torch.cat(chunks).cpu().numpy()


def evaluate(
    model: nn.Module,
    features_NF: Column,
    labels_N: np.ndarray,
    ends_B: np.ndarray,
    weight_B: np.ndarray | None = None,
) -> dict[str, float]:
    """`metrics.classification` of the windows ending at `ends_B`, with these weights."""
    probability_B = probability(predict(model, features_NF, ends_B))
    return classification(labels_N[ends_B], probability_B, weight_B=weight_B)
