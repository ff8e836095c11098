"""Probabilities from a network's logits. B windows, C classes (2)."""

import numpy as np
import torch
from torch.nn import functional


def probability(logits_BC: np.ndarray) -> np.ndarray:
    """Probability of an opportunity, float64 (B,), from logits (B, 2)."""
    logits = torch.from_numpy(np.ascontiguousarray(logits_BC)).double()
    return functional.softmax(logits, dim=1)[:, 1].numpy()
