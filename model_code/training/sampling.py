"""Which windows an epoch trains on; depends only on (seed, epoch)."""

import numpy as np

from model_code.settings import SEQUENCE_LENGTH


def covered(ends: np.ndarray, rows: int) -> np.ndarray:
    """Boolean (rows,): whether any window contains the row."""
    edges = np.zeros(rows + 1, dtype=np.int64)
    np.add.at(edges, ends - (SEQUENCE_LENGTH - 1), 1)
    np.add.at(edges, ends + 1, -1)
    covered: np.ndarray = np.cumsum(edges[:-1]) > 0
    return covered


def epoch_ends(ends: np.ndarray, epoch: int, size: int, seed: int) -> np.ndarray:
    """The epoch's windows: every window is used once, shuffled, before any is used again."""
    positions = np.arange((epoch - 1) * size, epoch * size)
    chosen = np.empty(size, dtype=ends.dtype)
    for sweep in np.unique(positions // len(ends)):
        order = np.random.default_rng(seed_of(seed, int(sweep), 0)).permutation(len(ends))
        here = positions // len(ends) == sweep
        chosen[here] = ends[order[positions[here] % len(ends)]]
    return chosen


def seed_of(*parts: int) -> int:
    """One 32-bit seed from several numbers, well mixed."""
    return int(np.random.SeedSequence([part % 2**32 for part in parts]).generate_state(1)[0])
