"""Golden requests: a model that is ready may still not answer, or answer wrongly.

A server goes on calling a model ready whose process is dead, and refuses to load it again. Only
recorded windows with their expected answers prove that it serves what it should.

Shapes: N windows, T = 64 steps, F = 16 features, C = 2 classes.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model_code.artifacts import atomic_file
from model_code.errors import IntegrityError, ServingError
from model_code.serving.client import TIMEOUT_S, TritonClient
from model_code.settings import MAX_BATCH_SIZE, MODEL_NAME

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class GoldenSet:
    """Recorded windows with the answers they must get.

    Attributes:
        x_NTF: windows, float32.
        logits_NC: expected logits, float32.
        tolerance: largest |logit difference| that is still the same answer.
    """

    x_NTF: NDArray[np.float32]
    logits_NC: NDArray[np.float32]
    tolerance: float

    @classmethod
    def record(cls, predict: Predict, x_NTF: NDArray[np.float32], tolerance: float) -> Self:
        """Ask an engine for the answers, in batches the server will take too."""
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
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, x_NTF=self.x_NTF, logits_NC=self.logits_NC, tolerance=self.tolerance)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            IntegrityError: absent or malformed.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                return cls(found["x_NTF"], found["logits_NC"], float(found["tolerance"]))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise IntegrityError(
                f"the golden set cannot be read: {error}",
                where=str(path),
                remedy="stage the version again",
            ) from error


def prove(
    client: TritonClient,
    golden: GoldenSet,
    model: str = MODEL_NAME,
    version: int | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Ask for every golden answer, in batches and the first one alone too, and compare.

    Raises:
        ServingError: no answer, NaN, another version's answer, or one off by more than the
            tolerance.
    """
    if len(golden.x_NTF) == 0:
        raise ServingError("the golden set is empty: it proves nothing", where=model)
    count = len(golden.x_NTF)
    together = [slice(i, min(i + MAX_BATCH_SIZE, count)) for i in range(0, count, MAX_BATCH_SIZE)]
    for batch in (slice(0, 1), *together):
        answer = client.ask(golden.x_NTF[batch], model=model, version=version, timeout_s=timeout_s)
        where = f"{client.url}, model {model}, version {answer.version}"
        if version is not None and answer.version != version:
            raise ServingError(f"asked for version {version}, another answered", where=where)
        error = float(np.abs(answer.logits_BC - golden.logits_NC[batch]).max())
        if not error <= golden.tolerance:
            raise ServingError(
                f"a golden request was answered wrongly: logits off by {error:.3g}, "
                f"allowed {golden.tolerance:.3g}",
                where=where,
                remedy="do not let it serve: tickline rollback",
            )


def heal(client: TritonClient, model: str = MODEL_NAME) -> None:
    """Unload and load a model: what revives one whose process died. Prove it afterwards.

    Raises:
        ServingError: it does not unload or load.
    """
    client.unload(model, wait=False)
    client.load(model)
