"""Requests stored with an engine and their expected responses: golden and recorded requests.

There are few golden requests; a server must answer them correctly before it gets traffic. There are
hundreds of recorded requests, of the newest day, with the predictions of the benchmark.

Shapes: N golden windows, R recorded requests, T = 64 steps, F = 16 features, C = 2 classes.
"""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model_code.artifacts import atomic_file
from model_code.errors import IntegrityError
from model_code.settings import MAX_BATCH_SIZE

GOLDEN_FILE = "golden.npz"
REPLAY_FILE = "replay.npz"
DRIFT_FILE = "drift.json"  # population stability index by feature
Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class GoldenSet:
    """Windows with their expected logits.

    Attributes:
        x_NTF: windows, float32.
        logits_NC: expected logits, float32.
        tolerance: largest |logit difference| that passes.
    """

    x_NTF: NDArray[np.float32]
    logits_NC: NDArray[np.float32]
    tolerance: float

    @classmethod
    def record(cls, predict: Predict, x_NTF: NDArray[np.float32], tolerance: float) -> Self:
        """Record an engine's logits, in batches no larger than the server accepts."""
        parts = [
            predict(x_NTF[start : start + MAX_BATCH_SIZE])
            for start in range(0, len(x_NTF), MAX_BATCH_SIZE)
        ]
        return cls(x_NTF, np.concatenate(parts), tolerance)

    def save(self, path: Path) -> None:
        """Write as .npz.

        Raises:
            StorageError: it cannot be written.
        """
        _save(path, x_NTF=self.x_NTF, logits_NC=self.logits_NC, tolerance=self.tolerance)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            IntegrityError: missing or malformed.
        """
        with _opened(path, "golden set") as found:
            return cls(found["x_NTF"], found["logits_NC"], float(found["tolerance"]))


@dataclass(frozen=True)
class Replay:
    """Windows of the newest day and the staged engine's predictions.

    Attributes:
        x_RTF: windows, float32, in time order.
        probability_R: the engine's probability of class 1 in the benchmark, float64.
        label_R: 0 or 1.
        champion_version: version that `champion_x_RTF` is for; None if there are none.
        champion_x_RTF: windows of the same rows as that version sees them, float32; None if it sees
            `x_RTF`.
        positive_x_PTF: other windows on which the champion decided true in the benchmark, float32;
            None: none were recorded.
        champion_positive_x_PTF: those as `champion_version` sees them; None if it sees these.
    """

    x_RTF: NDArray[np.float32]
    probability_R: NDArray[np.float64]
    label_R: NDArray[np.int8]
    champion_version: int | None = None
    champion_x_RTF: NDArray[np.float32] | None = None
    positive_x_PTF: NDArray[np.float32] | None = None
    champion_positive_x_PTF: NDArray[np.float32] | None = None

    def save(self, path: Path) -> None:
        """Write as .npz.

        Raises:
            StorageError: it cannot be written.
        """
        own = {"x_RTF": self.x_RTF, "probability_R": self.probability_R, "label_R": self.label_R}
        if self.champion_x_RTF is not None:
            own["champion_version"] = np.asarray(self.champion_version)
        others = {
            "champion_x_RTF": self.champion_x_RTF,
            "positive_x_PTF": self.positive_x_PTF,
            "champion_positive_x_PTF": self.champion_positive_x_PTF,
        }
        _save(path, **own, **{name: value for name, value in others.items() if value is not None})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            IntegrityError: missing or malformed.
        """
        with _opened(path, "recorded requests") as found:
            others = {
                name: found[name]
                for name in ("champion_x_RTF", "positive_x_PTF", "champion_positive_x_PTF")
                if name in found
            }
            version = int(found["champion_version"]) if "champion_version" in found else None
            own = found["x_RTF"], found["probability_R"], found["label_R"]
            return cls(*own, champion_version=version, **others)


def _save(path: Path, **arrays: Any) -> None:
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Any]:
    try:
        with np.load(path, allow_pickle=False) as found:
            yield found
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise IntegrityError(
            f"cannot read the {what}: {error}",
            where=str(path),
            remedy="stage the version again: tickline nightly --refresh",
        ) from error
