"""Probabilities from a network's logits. B windows, C classes (2)."""

import numpy as np
from scipy.special import expit


def probability(logits_BC: np.ndarray) -> np.ndarray:
    """Probability of an opportunity, float64 (B,), from logits (B, 2)."""
    logits = np.asarray(logits_BC, np.float64)
    p_B: np.ndarray = expit(logits[:, 1] - logits[:, 0])  # softmax of two classes
    return p_B
