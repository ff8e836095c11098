"""Recorded requests of the newest day, with the answers the benchmark stored for them.

Shapes: R requests, T = 64 steps, F = 16 features.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model_code.artifacts import atomic_file
from model_code.errors import IntegrityError

GOLDEN_FILE = "golden.npz"
REPLAY_FILE = "replay.npz"


@dataclass(frozen=True)
class Replay:
    """Windows of the newest day and what the staged engine answered to them.

    Attributes:
        x_RTF: windows, float32, in time order.
        probability_R: probability of class 1 the engine gave in the benchmark, float64.
        label_R: truth, 0 or 1.
    """

    x_RTF: NDArray[np.float32]
    probability_R: NDArray[np.float64]
    label_R: NDArray[np.int8]

    def save(self, path: Path) -> None:
        """Write as .npz.

        Raises:
            StorageError: it cannot be written.
        """
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, x_RTF=self.x_RTF, probability_R=self.probability_R, label_R=self.label_R)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            IntegrityError: absent or malformed.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                return cls(found["x_RTF"], found["probability_R"], found["label_R"])
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise IntegrityError(
                f"the recorded requests cannot be read: {error}",
                where=str(path),
                remedy="stage the version again: tickline nightly --refresh",
            ) from error
