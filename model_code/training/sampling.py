"""Which windows an epoch trains on; depends only on (seed, epoch)."""

import numpy as np

from model_code.settings import SEQUENCE_LENGTH


class Covered:
    """Boolean column (N,): whether any window contains the row.

    It is worked out for the rows asked for: in memory are the windows' ends alone.

    Args:
        ends: rows on which the windows end.
        rows: N.
    """

    ndim = 1
    dtype = np.dtype(bool)

    def __init__(self, ends: np.ndarray, rows: int) -> None:
        self._ends = np.sort(ends)
        self.shape = (rows,)

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The rows of a slice of step 1."""
        start, stop, _ = rows.indices(len(self))
        lookback, count = SEQUENCE_LENGTH - 1, stop - start
        ends = self._ends[slice(*np.searchsorted(self._ends, (start, stop + lookback)))]
        begun_N = np.bincount(np.maximum(ends - lookback - start, 0), minlength=count + 1)
        ended_N = np.bincount(np.minimum(ends + 1 - start, count), minlength=count + 1)
        covered: np.ndarray = np.cumsum(begun_N - ended_N)[:count] > 0
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
