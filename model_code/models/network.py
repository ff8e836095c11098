"""The network: Conv1d for local patterns, a Transformer encoder, mean over time, two logits.

Shapes: B windows, T steps (64), F features (16), D channels (d_model), C classes (2), N table rows.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from model_code.artifacts import atomic_file
from model_code.errors import DataError, IntegrityError
from model_code.models.dropout import BitDropout
from model_code.settings import CLASS_COUNT, FEATURE_COUNT, SEQUENCE_LENGTH, NetworkSpec

FORMAT = "tickline-network-1"
CLAMP = 10.0  # standard deviations; one outlier must not saturate the network or FP16
SHIFT = 3.0  # standard deviations; zero, the convolution's padding, then means "no row"
ROWS_PER_CHUNK = 1 << 20


class FinancialPredictor(nn.Module):
    """Raw features of one window -> logits of (no opportunity, opportunity) within the horizon.

    Standardisation is part of the graph, so callers pass raw features. There is no positional
    encoding: the encoder can identify the newest row only by the zeros of the convolution's
    padding. Standardised features are therefore shifted, so that no row looks like a zero. Without
    the shift the network learns several times more slowly to attend to the end of the window.
    Layers follow Vaswani et al. (2017), "Attention Is All You Need", post-norm, with torch's
    defaults.

    Args:
        spec: sizes; heads must divide d_model.
    """

    feature_mean_F: Tensor
    feature_std_F: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("feature_mean_F", torch.zeros(FEATURE_COUNT))
        self.register_buffer("feature_std_F", torch.ones(FEATURE_COUNT))
        self.convolution = nn.Conv1d(FEATURE_COUNT, spec.d_model, kernel_size=3, padding=1)
        layer = nn.TransformerEncoderLayer(
            spec.d_model, spec.heads, spec.feed_forward, spec.dropout, batch_first=True
        )
        layer.dropout, layer.dropout1, layer.dropout2 = (BitDropout(spec.dropout) for _ in "123")
        self.encoder = nn.TransformerEncoder(layer, spec.layers, enable_nested_tensor=False)
        self.head = nn.Linear(spec.d_model, CLASS_COUNT)

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return logits_BC for raw features x_BTF (float32, batch first)."""
        h_BDT = self.convolution(self.standardise(x_BTF).transpose(1, 2))
        h_BTD = self.encoder(h_BDT.transpose(1, 2))
        logits_BC: Tensor = self.head(h_BTD.mean(dim=1))
        return logits_BC

    def standardise(self, x_BTF: Tensor) -> Tensor:
        """Standard deviations from the training mean, clamped and shifted."""
        z_BTF = (x_BTF - self.feature_mean_F) / self.feature_std_F
        return z_BTF.clamp(-CLAMP, CLAMP) + SHIFT

    def fit_standardisation(
        self, features_NF: np.ndarray, rows_N: np.ndarray | None = None
    ) -> None:
        """Set the graph's mean and standard deviation from training rows only.

        A constant feature gets deviation 1, so that it cannot explode later.

        Args:
            features_NF: feature table, possibly memory-mapped; read in chunks.
            rows_N: boolean, the rows to use; None means all.

        Raises:
            DataError: no rows, the wrong number of features, or a non-finite value.
        """
        if features_NF.ndim != 2 or features_NF.shape[1] != FEATURE_COUNT:
            raise DataError(
                f"features have shape {features_NF.shape}, expected (rows, {FEATURE_COUNT})",
                remedy="build the feature table again with this version",
            )
        count, mean_F, square_F = 0, np.zeros(FEATURE_COUNT), np.zeros(FEATURE_COUNT)
        for start in range(0, len(features_NF), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            chunk_NF = features_NF[rows] if rows_N is None else features_NF[rows][rows_N[rows]]
            chunk_NF = chunk_NF.astype(np.float64)
            if len(chunk_NF) == 0:
                continue
            if not np.isfinite(chunk_NF).all():
                column = int(np.flatnonzero(~np.isfinite(chunk_NF).all(axis=0))[0])
                raise DataError(
                    "a feature of a training row is not finite",
                    where=f"feature {column}, rows {start} to {start + len(features_NF[rows])}",
                    remedy="quarantine its tick (validation), then build the features again",
                )
            # merge means and squared deviations by chunks (Chan, Golub, LeVeque 1983)
            total, delta_F = count + len(chunk_NF), chunk_NF.mean(axis=0) - mean_F
            square_F += chunk_NF.var(axis=0) * len(chunk_NF)
            square_F += delta_F**2 * (count * len(chunk_NF) / total)
            mean_F += delta_F * (len(chunk_NF) / total)
            count = total
        if count == 0:
            raise DataError("no training row to fit the standardisation on")
        std_F = np.sqrt(square_F / count)
        std_F[std_F <= 1e-6 * np.maximum(np.abs(mean_F), 1e-6)] = 1.0
        self.feature_mean_F.copy_(torch.from_numpy(mean_F))
        self.feature_std_F.copy_(torch.from_numpy(std_F))


def parameter_count(model: nn.Module) -> int:
    """Number of trainable parameters; 1.128 million for the default sizes."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops_per_window(spec: NetworkSpec) -> int:
    """Floating-point operations of one window's forward pass (a multiply-add counts as two).

    Counts the matrix products only: 147.2 million for the default sizes.
    """
    steps, width = SEQUENCE_LENGTH, spec.d_model
    convolution = steps * FEATURE_COUNT * 3 * width
    projections = steps * width * 4 * width  # query, key, value, out
    attention = 2 * steps * steps * width  # scores, and their product with the values
    feed_forward = steps * width * 2 * spec.feed_forward
    layers = spec.layers * (projections + attention + feed_forward)
    return 2 * (convolution + layers + width * CLASS_COUNT)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over every tensor's name, type, shape and bytes, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save(model: FinancialPredictor, path: Path) -> None:
    """Write the network, its sizes and a digest of its weights, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    payload = {
        "format": FORMAT,
        "spec": model.spec.model_dump(),
        "state": state,
        "sha256": state_digest(state),
    }
    buffer = io.BytesIO()  # torch would turn a full disk into a RuntimeError
    torch.save(payload, buffer)
    with atomic_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load(path: Path) -> FinancialPredictor:
    """Read a network in evaluation mode, on the CPU, without executing any code from the file.

    Raises:
        IntegrityError: missing, truncated, changed, or not a network of this format.
    """
    payload = read_tensors(path)
    try:
        if payload["format"] != FORMAT:
            raise ValueError(f"format {payload['format']!r}, expected {FORMAT!r}")
        if payload["sha256"] != state_digest(payload["state"]):
            raise ValueError("the weights differ from those that were saved")
        model = FinancialPredictor(NetworkSpec.model_validate(payload["spec"]))
        model.load_state_dict(payload["state"])
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise _unusable(path, error) from error
    return model.eval()


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a dictionary of tensors and plain values (`weights_only`).

    Raises:
        IntegrityError: missing, truncated, or with other content.
    """
    try:
        # from memory: a broken archive then fails here, not later through a memory map
        payload = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        LookupError,
        pickle.UnpicklingError,
    ) as error:
        raise _unusable(path, error) from error
    if not isinstance(payload, dict):
        raise _unusable(path, TypeError(f"contains a {type(payload).__name__}, not a dictionary"))
    return payload


def _unusable(path: Path, error: Exception) -> IntegrityError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, ValidationError):
        reason = "its sizes are not a NetworkSpec"
    return IntegrityError(
        f"{path.name} cannot be used: {reason}",
        where=str(path),
        remedy="copy it again from the model registry, or run the training stage again",
    )
