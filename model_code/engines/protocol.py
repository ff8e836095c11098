"""The protocol of all engines: availability, build, load, predict.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model_code.engines.sidecar import EngineSidecar
from model_code.errors import EngineError
from model_code.features.windows import require_finite
from model_code.models import network
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH
from model_code.training.threshold import DEFAULT_THRESHOLD

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]

PARITY_WINDOWS = 16


@dataclass(frozen=True)
class EngineSource:
    """The exported forms of one trained network.

    Attributes:
        model: `network.save` file.
        onnx: graph with a dynamic batch.
        torchscript: traced module.
        calibration: `.npy` of float32 training windows (N, 64, 16); None if there are none, and
            then no engine that needs them is built.
        onnx_trees: the same network with its trees as one ONNX node, for ONNX Runtime alone; None
            if it has no trees.
        threshold: probability from which a window counts as class 1; pruning limits the share of
            decisions that change.
    """

    model: Path
    onnx: Path
    torchscript: Path
    calibration: Path | None = None
    onnx_trees: Path | None = None
    threshold: float = DEFAULT_THRESHOLD

    def windows(self) -> NDArray[np.float32]:
        """The calibration windows.

        Raises:
            EngineError: there are none, or the file is invalid.
        """
        remedy = "pass training windows: EngineSource(..., calibration=PATH)"
        if self.calibration is None:
            raise EngineError("there are no calibration windows to build from", remedy=remedy)
        try:
            x_BTF = np.load(self.calibration, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise EngineError(
                f"the calibration windows cannot be read: {error}",
                where=str(self.calibration),
                remedy=remedy,
            ) from error
        if not isinstance(x_BTF, np.ndarray):
            raise EngineError("the calibration file contains several arrays", remedy=remedy)
        check_windows(x_BTF, where=str(self.calibration))
        return x_BTF


class Predictor(Protocol):
    """A loaded engine."""

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, 2) float32 of raw feature windows (B, 64, 16) float32.

        Raises:
            EngineError: the shape is not (B, 64, 16), B exceeds the engine's limit, or a value is
                NaN or infinite.
        """
        ...


class Engine(Protocol):
    """A way to run the network; one entry of `registry.ENGINES`."""

    @property
    def name(self) -> str:
        """One of `settings.ENGINE_NAMES`."""
        ...

    @property
    def precision(self) -> str:
        """Arithmetic of the matrix products: fp32, bf16, fp16, int8."""
        ...

    @property
    def device(self) -> str:
        """Where it computes: "cpu" or "cuda"."""
        ...

    def availability(self) -> str | None:
        """None if the engine can build and run on this machine, otherwise the reason."""
        ...

    def build(self, source: EngineSource, out: Path) -> EngineSidecar:
        """Write the engine's file and `engine.json` into folder `out`.

        Raises:
            EngineUnavailableError: this machine lacks what the engine needs.
            EngineError: the library refuses the graph, or the result has another precision.
        """
        ...

    def load(self, folder: Path) -> Predictor:
        """Open what `build` wrote.

        Raises:
            IntegrityError: bytes differ from the sidecar.
            EngineError: the engine was built for another machine or library.
        """
        ...


def check_windows(
    x_BTF: NDArray[np.float32], max_batch: int | None = None, where: str = ""
) -> None:
    """Raise on windows that an engine would silently broadcast, cast, or answer at random.

    Every engine calls it before it predicts.

    Raises:
        EngineError: wrong shape, type or batch size, NaN or infinity.
    """
    shape = x_BTF.shape
    if len(shape) != 3 or shape[1:] != (SEQUENCE_LENGTH, FEATURE_COUNT) or shape[0] == 0:
        raise EngineError(
            f"windows have shape {shape}, expected (batch, {SEQUENCE_LENGTH}, {FEATURE_COUNT})",
            where=where,
            remedy="gather windows with model_code.features.windows.gather",
        )
    if x_BTF.dtype != np.float32:
        raise EngineError(f"windows are {x_BTF.dtype}, expected float32", where=where)
    if max_batch is not None and shape[0] > max_batch:
        raise EngineError(
            f"batch of {shape[0]} windows, the engine takes at most {max_batch}",
            remedy="send smaller batches",
        )
    require_finite(x_BTF, EngineError, where)


def parity_error(predictor: Predictor, source: EngineSource) -> float:
    """Largest |logit difference| to eager FP32.

    Uses the calibration windows if there are any, otherwise random windows with the features'
    training mean and deviation.

    Raises:
        EngineError: a logit is NaN or infinite, or the calibration windows are invalid.
    """
    reference = network.load(source.model).eval()
    if source.calibration is not None:
        windows = source.windows()
        some = np.linspace(0, len(windows) - 1, min(PARITY_WINDOWS, len(windows)))
        x_BTF = np.ascontiguousarray(windows[some.astype(np.int64)])
    else:
        noise_BTF = np.random.default_rng(0).standard_normal(
            (PARITY_WINDOWS, SEQUENCE_LENGTH, FEATURE_COUNT), dtype=np.float32
        )
        mean_F = reference.feature_mean_F.detach().cpu().numpy()
        std_F = reference.feature_std_F.detach().cpu().numpy()
        x_BTF = np.ascontiguousarray(mean_F + std_F * noise_BTF, dtype=np.float32)
    with torch.inference_mode():
        expected_BC = reference(torch.from_numpy(x_BTF)).numpy()
    answer_BC = predictor.predict(x_BTF)
    if not np.isfinite(answer_BC).all():
        raise EngineError(
            "the built engine outputs NaN or infinity",
            remedy="check whether its precision covers the range of the features",
        )
    return float(np.abs(answer_BC - expected_BC).max())
