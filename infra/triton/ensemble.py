"""Compare a blend's ensemble with its single graph, both in the real server: logits and times.

Shapes: N windows, B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.triton.server import running
from model_code.errors import ExportError
from model_code.export.graph import PARITY_BATCHES, PARITY_LIMIT
from model_code.export.parts import Part
from model_code.repository.ensemble import ENSEMBLE_NAME, SUM_NAME, part_name
from model_code.repository.requests import GoldenSet
from model_code.serving import golden
from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME, Settings

ROUNDS = 200


@dataclass(frozen=True)
class ModelTime:
    """Single windows through one model of the ensemble, or through the single graph.

    Attributes:
        model: its name on the server.
        weight: of a part.
        server_ms: p50 from receipt to response, from the server's statistics.
        client_ms: p50 as the caller sees it; None for models that the ensemble calls.
    """

    model: str
    weight: float | None
    server_ms: float
    client_ms: float | None = None


@dataclass(frozen=True)
class Comparison:
    """An ensemble that answers as the single graph.

    Attributes:
        windows: compared.
        error: largest difference of a logit; of one above 1, its share.
        times: parts, sum, ensemble, single graph.
    """

    windows: int
    error: float
    times: tuple[ModelTime, ...]


def compare_with_single(
    settings: Settings,
    repository: Path,
    split: Sequence[Part],
    x_NTF: NDArray[np.float32],
    *,
    known: GoldenSet | None = None,
    rounds: int = ROUNDS,
) -> Comparison:
    """Serve a repository with both, compare all windows at several batch sizes, then time both.

    Args:
        settings: location of the server's installation.
        repository: with the ensemble's models and the single graph under its own name.
        split: the ensemble's parts.
        x_NTF: raw windows.
        known: windows and logits that the ensemble must give, too.
        rounds: timed requests to each; the two are asked in turns.

    Raises:
        ExportError: a logit differs from the single graph's.
        ServerError: the server does not start.
        ServingError: a model does not load or answer, or `known` is answered wrongly.
    """
    with (
        running(settings, repository, models=(MODEL_NAME, ENSEMBLE_NAME)) as server,
        TritonClient(server.grpc_url) as client,
    ):
        if known is not None:
            golden.prove(client, known, ENSEMBLE_NAME)
        errors = [_error(client, x_NTF, batch) for batch in PARITY_BATCHES]
        return Comparison(len(x_NTF), max(errors), _times(client, split, x_NTF, rounds))


def _error(client: TritonClient, x_NTF: NDArray[np.float32], batch: int) -> float:
    """Largest difference of a logit at one batch size, as `ExportReport.parity_error`."""
    found = []
    for start in range(0, len(x_NTF), batch):
        x_BTF = x_NTF[start : start + batch]
        expected_BC = client.predict(x_BTF)
        gap_BC = np.abs(client.predict(x_BTF, model=ENSEMBLE_NAME) - expected_BC)
        found.append(gap_BC / np.maximum(1.0, np.abs(expected_BC)))
    error_N = np.concatenate(found).max(axis=1)
    wrong = int((~(error_N <= PARITY_LIMIT)).sum())  # NaN counts too
    if wrong:
        raise ExportError(
            f"the ensemble's logits differ from the single graph's by up to {error_N.max():.2g} "
            f"(limit {PARITY_LIMIT:g}), on {wrong} of {len(x_NTF)} windows at batch {batch}",
            where=ENSEMBLE_NAME,
            remedy="serve the single graph; report the onnx and onnxruntime versions",
        )
    return float(error_N.max())


def _times(
    client: TritonClient, split: Sequence[Part], x_NTF: NDArray[np.float32], rounds: int
) -> tuple[ModelTime, ...]:
    weights = {part_name(part): part.weight for part in split}
    asked = (ENSEMBLE_NAME, MODEL_NAME)
    served_ms: dict[str, list[float]] = {
        name: [] for name in (*weights, SUM_NAME, ENSEMBLE_NAME, MODEL_NAME)
    }
    called_ms: dict[str, list[float]] = {name: [] for name in asked}
    before = {name: client.statistics(name).total_ns for name in served_ms}
    for number in range(rounds):
        x_BTF = x_NTF[number % len(x_NTF)][None]
        for name in asked:
            began = time.perf_counter()
            client.predict(x_BTF, model=name)
            called_ms[name].append((time.perf_counter() - began) * 1e3)
        # each model answered one request, so the sums have grown by its time
        after = {name: client.statistics(name).total_ns for name in served_ms}
        for name, values in served_ms.items():
            values.append((after[name] - before[name]) / 1e6)
        before = after
    return tuple(
        ModelTime(
            name,
            weights.get(name),
            float(np.median(values)),
            float(np.median(called_ms[name])) if name in called_ms else None,
        )
        for name, values in served_ms.items()
    )
