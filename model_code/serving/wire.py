"""Request and response messages, shared by both clients.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
Source: the KServe v2 inference protocol, Triton's grpc_service.proto.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from model_code.errors import ServingError
from model_code.features.windows import require_finite
from model_code.settings import (
    CLASS_COUNT,
    FEATURE_COUNT,
    INPUT_NAME,
    MAX_BATCH_SIZE,
    OUTPUT_NAME,
    SEQUENCE_LENGTH,
)
from model_code.settings.address import check_address

NUMPY: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2")}
OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 500),  # reconnect quickly to a restarted server
    ("grpc.enable_http_proxy", 0),  # the environment's is for the web, not for the model server
)
HTTP_KEY_HEADER = "tickline-key"
GRPC_KEY_HEADER = f"triton-grpc-protocol-{HTTP_KEY_HEADER}"  # the prefix is Triton's
RESTRICTED = "protocol is restricted"  # in Triton's refusal of a call without the key
DEAD = "is not healthy"  # in what Triton says of a model whose process has exited
SPOILED = re.compile(r"batch size \d+ for '.+', max allowed is \d+")  # Triton's words


class LateError(ServingError):
    """There was no answer within the deadline."""


@dataclass(frozen=True)
class Answer:
    """The server's response.

    Attributes:
        logits_BC: float32.
        version: model version that computed them.
    """

    logits_BC: NDArray[np.float32]
    version: int


def check_windows(x_BTF: object) -> None:
    """Refuse windows before they are sent.

    Raises:
        ServingError: not an array (B, 64, 16) of float32, too many of them, NaN or infinity.
    """
    if not isinstance(x_BTF, np.ndarray) or isinstance(x_BTF, np.ma.MaskedArray):
        raise ServingError(f"windows are a {type(x_BTF).__name__}, expected a numpy array")
    shape = x_BTF.shape
    if len(shape) != 3 or shape[1:] != (SEQUENCE_LENGTH, FEATURE_COUNT):
        raise ServingError(
            f"windows have shape {shape}, expected (batch, {SEQUENCE_LENGTH}, {FEATURE_COUNT})"
        )
    if not 1 <= shape[0] <= MAX_BATCH_SIZE:
        raise ServingError(
            f"{shape[0]} windows in one request, the server takes 1 to {MAX_BATCH_SIZE}",
            remedy="send them in batches",
        )
    if x_BTF.dtype != np.float32:
        raise ServingError(f"windows are {x_BTF.dtype}, expected float32")
    require_finite(x_BTF, ServingError)


def request(
    x_BTF: NDArray[np.float32], model: str, version: int | None, dtype: str
) -> service_pb2.ModelInferRequest:
    """An inference request; with `version` None the server uses its newest.

    Raises:
        ServingError: as `check_windows`, or a value beyond the range of FP16.
    """
    check_windows(x_BTF)
    with np.errstate(over="ignore"):  # overflow is checked below
        sent_BTF = np.ascontiguousarray(x_BTF, dtype=NUMPY[dtype])
    if dtype == "FP16" and not np.isfinite(sent_BTF).all():
        raise ServingError("windows contain values beyond the range of FP16", where=model)
    return service_pb2.ModelInferRequest(
        model_name=model,
        model_version=text(version),
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(
                name=INPUT_NAME, datatype=dtype, shape=x_BTF.shape
            )
        ],
        raw_input_contents=[sent_BTF.tobytes()],
    )


def answer(response: service_pb2.ModelInferResponse, batch: int) -> Answer:
    """Read the server's response.

    Raises:
        ServingError: logits missing, of another shape, NaN or infinite.
    """
    where = f"{response.model_name} version {response.model_version}"
    names = [output.name for output in response.outputs]
    if OUTPUT_NAME not in names or len(response.raw_output_contents) != len(names):
        raise ServingError(f"the response has no {OUTPUT_NAME}", where=where)
    index = names.index(OUTPUT_NAME)
    output = response.outputs[index]
    if tuple(output.shape) != (batch, CLASS_COUNT) or output.datatype not in NUMPY:
        raise ServingError(
            f"the response is {output.datatype}{list(output.shape)}, "
            f"expected FP32 or FP16 {[batch, CLASS_COUNT]}",
            where=where,
        )
    raw = np.frombuffer(response.raw_output_contents[index], NUMPY[output.datatype])
    logits_BC = raw.astype(np.float32).reshape(batch, CLASS_COUNT)
    if not np.isfinite(logits_BC).all():
        raise ServingError("the model returned NaN or infinity", where=where, remedy="roll it back")
    return Answer(logits_BC, int(response.model_version))


def input_dtype(metadata: service_pb2.ModelMetadataResponse) -> str:
    """Type of the model's input.

    Raises:
        ServingError: the model does not match the contract.
    """
    found = {tensor.name: str(tensor.datatype) for tensor in metadata.inputs}
    if found.get(INPUT_NAME) not in NUMPY:
        raise ServingError(
            f"model {metadata.name} takes {found}, expected {INPUT_NAME} as FP32 or FP16",
            remedy="stage models with the nightly flow",
        )
    return found[INPUT_NAME]


def refusal(error: grpc.RpcError, url: str, what: str) -> ServingError:
    """Convert a gRPC error into a `ServingError` with a remedy; `LateError` after the deadline."""
    code, details = error.code(), error.details() or "no details"
    remedies = {
        grpc.StatusCode.UNAVAILABLE: "is it running, the model loaded, and this its gRPC port, not "
        "that of HTTP? tickline triton status",
        grpc.StatusCode.DEADLINE_EXCEEDED: "allow more time, or check the server's load",
        grpc.StatusCode.INTERNAL: "read its log: tickline triton logs",
        grpc.StatusCode.NOT_FOUND: "load the model first",
    }
    remedy = remedies.get(code, "")
    if RESTRICTED in details:
        remedy = "set TICKLINE_TRITON_KEY to the key of that server (docs/security.md)"
    kind = LateError if code == grpc.StatusCode.DEADLINE_EXCEEDED else ServingError
    return kind(
        f"{what}: {details} ({code.name})",
        where=url,
        remedy=remedy,
    )


def key_metadata(key: str | None) -> tuple[tuple[str, str], ...]:
    """What a gRPC call sends so that the server allows its model control."""
    return () if key is None else ((GRPC_KEY_HEADER, key),)


def is_spoiled(error: grpc.RpcError) -> bool:
    """Whether a request failed only because of another one in the same batch.

    Triton takes a request whose batch dimension is 0, or a multiple of 2^32, and counts it as a
    full batch: with any other in it the batch is too large, and all of it fails. A request made
    here never has that cause of its own.
    """
    internal = error.code() == grpc.StatusCode.INTERNAL
    return internal and SPOILED.search(error.details() or "") is not None


def is_dead(error: grpc.RpcError) -> bool:
    """Whether the model's process died under the request, or before it; it may be loaded again."""
    internal = error.code() == grpc.StatusCode.INTERNAL
    return internal and DEAD in (error.details() or "")


def text(version: int | None) -> str:
    """A version as in the protocol; empty means the server's choice."""
    return "" if version is None else str(version)


def urls(url: str | Sequence[str]) -> tuple[str, ...]:
    """One address or several.

    Raises:
        ServingError: none, or one that is no host:port of gRPC.
    """
    found = (url,) if isinstance(url, str) else tuple(url)
    if not found:
        raise ServingError("no server to ask", remedy="pass at least one host:port")
    for one in found:
        try:
            check_address(one)
        except ValueError as error:
            raise ServingError(str(error), where=one) from error
    return found


def shown(url: str | Sequence[str]) -> str:
    """One address or several, for messages."""
    return ", ".join(urls(url))
