"""The network: Conv1d for local patterns, a Transformer encoder, mean over time, two logits.

Shapes: B windows, T steps (64), F features (16), D channels (d_model), C classes (2), N table rows.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from model_code.artifacts import atomic_file
from model_code.errors import IntegrityError
from model_code.models.blend import Blend
from model_code.models.boosting import Boosting
from model_code.models.encoder import EncoderLayer
from model_code.models.mlp import SummaryMlp, mlp_flops
from model_code.models.predictor import WindowModel
from model_code.models.transformer2 import ConvTransformer2, transformer2_flops
from model_code.settings import (
    CLASS_COUNT,
    FEATURE_COUNT,
    SEQUENCE_LENGTH,
    AnyNetworkSpec,
    BlendSpec,
    BoostingSpec,
    ConvTransformer2Spec,
    MlpSpec,
    NetworkSpec,
    PerceptronSpec,
)

FORMAT = "tickline-network-1"
NETWORK_SPECS: TypeAdapter[AnyNetworkSpec] = TypeAdapter(AnyNetworkSpec)
SHIFT = 3.0  # standard deviations; zero, the convolution's padding, then means "no row"


class FinancialPredictor(WindowModel):
    """The design's network.

    There is no positional encoding: the encoder can identify the newest row only by the zeros of
    the convolution's padding. Standardised features are therefore shifted, so that no row looks
    like a zero. Without the shift the network learns several times more slowly to attend to the end
    of the window.
    Layers follow Vaswani et al. (2017), "Attention Is All You Need", post-norm, with torch's
    defaults.

    Args:
        spec: sizes; heads must divide d_model.
    """

    spec: NetworkSpec

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.convolution = nn.Conv1d(FEATURE_COUNT, spec.d_model, kernel_size=3, padding=1)
        layer = EncoderLayer(
            spec.d_model, spec.heads, spec.feed_forward, spec.dropout, norm_first=False
        )
        self.encoder = nn.TransformerEncoder(layer, spec.layers, enable_nested_tensor=False)
        self.head = nn.Linear(spec.d_model, CLASS_COUNT)

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return logits_BC for raw features x_BTF (float32, batch first)."""
        h_BDT = self.convolution(self.standardise(x_BTF).transpose(1, 2))
        h_BTD = self.encoder(h_BDT.transpose(1, 2))
        logits_BC: Tensor = self.head(h_BTD.mean(dim=1))
        return logits_BC

    def heads(self) -> list[nn.Linear]:
        """The only one."""
        return [self.head]

    def standardise(self, x_BTF: Tensor) -> Tensor:
        """Standard deviations from the training mean, clamped and shifted."""
        return super().standardise(x_BTF) + SHIFT


def parameter_count(model: nn.Module) -> int:
    """Number of trainable parameters; 1.128 million for the default sizes, none for boosting."""
    return sum(parameter.numel() for parameter in model.parameters())


def build(spec: AnyNetworkSpec) -> WindowModel:
    """A network of this kind and these sizes, with fresh weights."""
    if isinstance(spec, BoostingSpec):
        return Boosting(spec)
    if isinstance(spec, BlendSpec):
        return Blend(spec)
    if isinstance(spec, ConvTransformer2Spec):
        return ConvTransformer2(spec)
    return SummaryMlp(spec) if isinstance(spec, MlpSpec) else FinancialPredictor(spec)


def flops_per_window(spec: AnyNetworkSpec) -> int:
    """Floating-point operations of one window's forward pass (a multiply-add counts as two).

    Counts the matrix products only, no comparison of a tree: 147.2 million for the design's
    default sizes, 0 for boosting.
    """
    if isinstance(spec, BoostingSpec):
        return 0
    if isinstance(spec, PerceptronSpec):
        return mlp_flops(spec) * (spec.members if isinstance(spec, BlendSpec) else 1)
    if isinstance(spec, ConvTransformer2Spec):
        return transformer2_flops(spec)
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


def save(model: WindowModel, path: Path) -> None:
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


def load(path: Path) -> WindowModel:
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
        model = build(NETWORK_SPECS.validate_python(payload["spec"]))
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
