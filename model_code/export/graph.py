"""Export of a trained network to TorchScript and ONNX, each checked for parity.

Shapes: B windows, T steps (64), F features (16), C classes (2).
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from model_code.artifacts import atomic_file
from model_code.errors import ExportError
from model_code.models.predictor import WindowModel
from model_code.models.trees import TreeEnsemble
from model_code.settings import (
    CLASS_COUNT,
    FEATURE_COUNT,
    INPUT_NAME,
    ONNX_ML_OPSET,
    ONNX_OPSET,
    OUTPUT_NAME,
    SEQUENCE_LENGTH,
)

PARITY_BATCHES = (1, 7, 64)
PARITY_LIMIT = 1e-5  # largest difference, FP32 against FP32, of a logit; of one above 1, its share
# With trees as tensors, a window on a threshold takes the other branch if the graph rounds a mean
# otherwise than torch: up to three of 12,000 windows of the reference ticks. A wrong graph differs
# on many.
BRANCHED = 1  # different windows of the example that may do so
BRANCH_LIMIT = 1.0  # and by how much a logit may then differ
BATCH_DIM = "batch"


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes:
        format: torchscript or onnx.
        opset: of ONNX's default domain; None for TorchScript.
        parity_error: largest difference of a logit from torch, over all batches checked, divided by
            the logit if that is above 1: sums of hundreds of trees round. With trees as tensors,
            also that of a window that takes another branch.
        parity_batches: the batch sizes checked.
        file_bytes: size of the file.
    """

    format: str
    opset: int | None
    parity_error: float
    parity_batches: tuple[int, ...]
    file_bytes: int


def export_torchscript(model: WindowModel, example_BTF: np.ndarray, path: Path) -> ExportReport:
    """Trace the network in evaluation mode, on the CPU.

    Args:
        model: in evaluation mode.
        example_BTF: real raw windows, two or more.
        path: file to write, atomically.

    Raises:
        ExportError: the traced network, read back, gives other logits, or the example is invalid.
        StorageError: the file cannot be written.
    """
    _check(model, example_BTF)
    with atomic_file(path) as temporary:
        with torch.no_grad(), warnings.catch_warnings():
            # torch deprecates TorchScript in favour of torch.export; Triton's PyTorch backend
            # still serves it
            warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*torch.jit")
            # shape checks inside torch's attention become constants, valid for every batch
            warnings.filterwarnings("ignore", message=".*trace might not generalize.*")
            # the same fused evaluation path as in eager mode; parity is checked below
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                model, torch.from_numpy(example_BTF), check_trace=False
            )
            traced.save(str(temporary))
            restored = torch.jit.load(str(temporary), "cpu")  # type: ignore[no-untyped-call]

        def answer(x_BTF: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                logits_BC: Tensor = restored(torch.from_numpy(x_BTF))
            return logits_BC.numpy()

        error = _parity(model, answer, example_BTF, path, _branched(model))
    return ExportReport("torchscript", None, error, PARITY_BATCHES, path.stat().st_size)


def export_onnx(
    model: WindowModel, example_BTF: np.ndarray, path: Path, *, form: nn.Module | None = None
) -> ExportReport:
    """Write `input__0` float32 [batch, 64, 16] -> `output__0` float32 [batch, 2], one file.

    Args:
        model: in evaluation mode.
        example_BTF: real raw windows, two or more: from a single one, the exporter silently
            writes a fixed batch.
        path: file to write, atomically.
        form: another module of the same logits, written in the network's place; its file too is
            compared with the network.

    Raises:
        ExportError: names, types, dynamic batch or opset differ from the contract, ONNX's checker
            rejects the file, or ONNX Runtime's logits differ from torch's.
        StorageError: the file cannot be written.
    """
    _check(model, example_BTF)
    with atomic_file(path) as temporary:
        with torch.no_grad(), warnings.catch_warnings(), _quiet_registration():
            # the exporter itself uses deprecated functions of torch and its helpers
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            torch.onnx.export(
                model if form is None else form,
                (torch.from_numpy(example_BTF[:2]),),
                temporary,
                dynamo=True,
                opset_version=ONNX_OPSET,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim(BATCH_DIM, min=1)},),
                external_data=False,
                verbose=False,
            )
        opset = check_onnx(temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])

        def answer(x_BTF: np.ndarray) -> np.ndarray:
            logits_BC: np.ndarray = session.run([OUTPUT_NAME], {INPUT_NAME: x_BTF})[0]
            return logits_BC

        error = _parity(model, answer, example_BTF, path, _branched(model))
    return ExportReport("onnx", opset, error, PARITY_BATCHES, path.stat().st_size)


@contextmanager
def _quiet_registration() -> Iterator[None]:
    """Suppress the exporter's warning that torchvision, which is not used here, is missing."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_onnx(path: Path) -> int:
    """Check an ONNX file against the served contract and return its opset.

    Raises:
        ExportError: as in `export_onnx`, except parity.
    """
    graph = onnx.load(path, load_external_data=False)
    if any(tensor.external_data for tensor in graph.graph.initializer):
        raise _refused("its weights are in another file", path)
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _refused(f"ONNX's checker rejects it: {error}", path) from error
    expected = {
        "input": (INPUT_NAME, [BATCH_DIM, SEQUENCE_LENGTH, FEATURE_COUNT]),
        "output": (OUTPUT_NAME, [BATCH_DIM, CLASS_COUNT]),
    }
    for side, (name, shape) in expected.items():
        values = list(getattr(graph.graph, side))
        found = [
            (value.name, [dim.dim_param or dim.dim_value for dim in tensor.shape.dim])
            for value in values
            for tensor in [value.type.tensor_type]
            if tensor.elem_type == onnx.TensorProto.FLOAT
        ]
        if found != [(name, shape)] or len(values) != 1:
            raise _refused(f"{side}: expected float32 {(name, shape)}, found {found}", path)
    opsets = {item.domain: item.version for item in graph.opset_import}
    if {"ai.onnx.ml": ONNX_ML_OPSET} | opsets != {"": ONNX_OPSET, "ai.onnx.ml": ONNX_ML_OPSET}:
        raise _refused(f"opset {opsets}, expected {ONNX_OPSET} (ai.onnx.ml {ONNX_ML_OPSET})", path)
    return ONNX_OPSET


def _check(model: WindowModel, example_BTF: np.ndarray) -> None:
    if model.training:
        raise ExportError(
            "the network is in training mode, so dropout would be exported",
            remedy="call model.eval() first",
        )
    shape, kind = example_BTF.shape, example_BTF.dtype
    if len(shape) != 3 or shape[0] < 2 or shape[1:] != (SEQUENCE_LENGTH, FEATURE_COUNT):
        raise ExportError(
            f"the example has shape {shape}, expected (2 or more, {SEQUENCE_LENGTH}, "
            f"{FEATURE_COUNT}): with fewer windows the exported batch size would be fixed"
        )
    if kind != np.float32 or not np.isfinite(example_BTF).all():
        raise ExportError(f"the example ({kind}) must be finite float32")


def _branched(model: WindowModel) -> int:
    """How many windows may differ: `BRANCHED` if the model has trees."""
    trees = [part for part in model.modules() if isinstance(part, TreeEnsemble)]
    return BRANCHED if any(part.levels for part in trees) else 0


def _parity(
    model: WindowModel,
    answer: Callable[[np.ndarray], np.ndarray],
    example_BTF: np.ndarray,
    path: Path,
    branched: int = 0,
) -> float:
    """`ExportReport.parity_error` of `answer`.

    Windows that differ by more than the limit are refused, except `branched` different ones.
    """
    errors, differing = [], set()
    for batch in PARITY_BATCHES:
        x_BTF = np.resize(example_BTF, (batch, *example_BTF.shape[1:]))  # repeats if too few
        with torch.inference_mode():
            expected_BC = model(torch.from_numpy(x_BTF)).numpy()
        found_BC = answer(x_BTF)
        if found_BC.shape != expected_BC.shape:
            raise _refused(f"output shape {found_BC.shape} at batch {batch}", path)
        scale_BC = np.maximum(1.0, np.abs(expected_BC))
        error_B = (np.abs(found_BC - expected_BC) / scale_BC).max(axis=1)
        errors.append(float(error_B.max()))
        beyond = np.flatnonzero(~(error_B <= PARITY_LIMIT))  # NaN must count too
        differing |= set((beyond % len(example_BTF)).tolist())
    worst = float(np.max(errors))  # NaN if one is
    if differing and not (len(differing) <= branched and worst <= BRANCH_LIMIT):
        raise _refused(
            f"a logit differs from torch by {worst:.2g} (limit {PARITY_LIMIT:g}), "
            f"on {len(differing)} windows of the example",
            path,
        )
    return worst


def _refused(reason: str, path: Path) -> ExportError:
    return ExportError(
        f"the exported graph does not match the network: {reason}",
        where=str(path),
        remedy="report the torch, onnx and onnxruntime versions; nothing was written",
    )
