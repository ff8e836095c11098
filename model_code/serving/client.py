"""The model server's synchronous client: control, statistics, predictions over gRPC.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from model_code.errors import ServingError
from model_code.serving import refusals, wire
from model_code.serving.owner import Owner
from model_code.settings import MODEL_NAME

TIMEOUT_S = 10.0
LOAD_TIMEOUT_S = 120.0
SPOILED_ATTEMPTS = 8  # of a request that others' requests spoil


@dataclass(frozen=True)
class ModelState:
    """One entry of the server's repository index.

    Attributes:
        model: name.
        version: None for a model that was never loaded.
        state: READY, UNAVAILABLE, LOADING, UNLOADING or empty.
        reason: why it is in that state.
    """

    model: str
    version: int | None
    state: str
    reason: str


@dataclass(frozen=True)
class Statistics:
    """The server's counts of one model version since it was loaded; times are sums in ns.

    Attributes:
        version: of the model.
        requests: answered, including those that a Python-based backend refused.
        failed: by the server itself.
        inferences: windows computed.
        executions: calls of the engine; fewer than requests if batched.
        queue_ns: waiting for a batch.
        compute_input_ns: transferring the input.
        compute_infer_ns: in the engine.
        compute_output_ns: transferring the output.
        total_ns: of answered requests, from receipt to response.
    """

    version: int
    requests: int
    failed: int
    inferences: int
    executions: int
    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    total_ns: int


class TritonClient:
    """One connection to a Triton server; usable from several threads, not in a forked process.

    A closed client and a forked process are refused with a `ServingError` by every method.

    Args:
        url: host:port of its gRPC endpoint.
        key: of its model control, which load, unload and index need; None: they are refused
            unless the server asks for none.

    Raises:
        ServingError: a bad address, or a forked process.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = wire.shown(url)
        self._key = wire.key_metadata(key)
        self._owner = Owner(self.url)
        self._channel = grpc.insecure_channel(url, options=wire.OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._dtypes: dict[tuple[str, int | None], str] = {}

    def close(self) -> None:
        """Close the connection; in a forked process it stays, since it is the parent's."""
        if not self._owner.is_elsewhere:
            self._owner.closed = True
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def live(self) -> bool:
        """Whether the server responds."""
        self._owner.require()
        try:
            with self._faults("server"):
                return bool(
                    self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=TIMEOUT_S).live
                )
        except ServingError:
            return False

    def server(self) -> str:
        """The server's name and version, as "triton 2.51.0".

        Raises:
            ServingError: no response.
        """
        with self._faults("server"):
            found = self._stub.ServerMetadata(
                service_pb2.ServerMetadataRequest(), timeout=TIMEOUT_S
            )
        return f"{found.name} {found.version}"

    def ready(self, model: str = MODEL_NAME, version: int | None = None) -> bool:
        """Whether the server reports the model as ready; not reliable, see `golden.prove`."""
        self._owner.require()
        message = service_pb2.ModelReadyRequest(name=model, version=wire.text(version))
        try:
            with self._faults(model):
                return bool(self._stub.ModelReady(message, timeout=TIMEOUT_S).ready)
        except ServingError:
            return False

    def load(self, model: str = MODEL_NAME, versions: Sequence[int] = ()) -> None:
        """Load a model, or reload it after a change of its folder.

        Args:
            model: its folder in the repository.
            versions: must be ready afterwards; the configuration decides which versions load.

        Raises:
            ServingError: it does not load (the versions before keep serving), or a version is
                missing.
        """
        message = service_pb2.RepositoryModelLoadRequest(model_name=model)
        with self._faults(f"model {model} does not load"):
            self._stub.RepositoryModelLoad(message, timeout=LOAD_TIMEOUT_S, metadata=self._key)
        self._dtypes.clear()
        absent = sorted(set(versions) - set(self.versions(model)))
        if absent:
            raise ServingError(
                f"model {model} loaded without version {', '.join(map(str, absent))}",
                where=self.url,
                remedy="check its folder, and version_policy in its config.pbtxt",
            )

    def load_bytes(self, model: str, config_json: str, files: Mapping[str, bytes]) -> None:
        """Load a model that is not in a repository.

        Args:
            model: name to serve it under.
            config_json: its configuration, `ModelConfig` as JSON.
            files: contents by path inside the model's folder, as `7/model.onnx`.

        Raises:
            ServingError: it does not load.
        """
        message = service_pb2.RepositoryModelLoadRequest(model_name=model)
        message.parameters["config"].string_param = config_json
        for path, content in files.items():
            message.parameters[f"file:{path}"].bytes_param = content
        with self._faults(f"model {model} does not load"):
            self._stub.RepositoryModelLoad(message, timeout=LOAD_TIMEOUT_S, metadata=self._key)
        self._dtypes.clear()

    def unload(self, model: str = MODEL_NAME, *, wait: bool = True) -> None:
        """Unload every version of a model.

        Args:
            model: its folder in the repository.
            wait: until none is left; a version whose process died in a request never unloads.

        Raises:
            ServingError: the server refuses, or does not finish in time.
        """
        message = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        with self._faults(f"model {model} does not unload"):
            self._stub.RepositoryModelUnload(message, timeout=LOAD_TIMEOUT_S, metadata=self._key)
        self._dtypes.clear()
        deadline = time.monotonic() + LOAD_TIMEOUT_S
        while wait and any(
            e.model == model and e.state in {"READY", "UNLOADING"} for e in self.index()
        ):
            if time.monotonic() > deadline:
                raise ServingError(f"model {model} is still unloading", where=self.url)
            time.sleep(0.02)

    def index(self) -> list[ModelState]:
        """Every model and version in the server's index.

        Raises:
            ServingError: no response.
        """
        with self._faults("repository index"):
            found = self._stub.RepositoryIndex(
                service_pb2.RepositoryIndexRequest(), timeout=TIMEOUT_S, metadata=self._key
            )
        return [
            ModelState(
                entry.name, int(entry.version) if entry.version else None, entry.state, entry.reason
            )
            for entry in found.models
        ]

    def versions(self, model: str = MODEL_NAME) -> list[int]:
        """Versions of a model that are ready, ascending.

        Raises:
            ServingError: no response.
        """
        return sorted(
            entry.version
            for entry in self.index()
            if entry.model == model and entry.state == "READY" and entry.version is not None
        )

    def statistics(self, model: str = MODEL_NAME, version: int | None = None) -> Statistics:
        """The server's counts and times, of the newest version unless one is given.

        Raises:
            ServingError: the model is not loaded.
        """
        message = service_pb2.ModelStatisticsRequest(name=model, version=wire.text(version))
        with self._faults(f"statistics of {model}"):
            response = self._stub.ModelStatistics(message, timeout=TIMEOUT_S)
        found = max(response.model_stats, key=lambda stats: int(stats.version))
        times = found.inference_stats
        return Statistics(
            version=int(found.version),
            requests=times.success.count,
            failed=times.fail.count,
            inferences=found.inference_count,
            executions=found.execution_count,
            queue_ns=times.queue.ns,
            compute_input_ns=times.compute_input.ns,
            compute_infer_ns=times.compute_infer.ns,
            compute_output_ns=times.compute_output.ns,
            total_ns=times.success.ns,
        )

    def predict(
        self,
        x_BTF: NDArray[np.float32],
        *,
        model: str = MODEL_NAME,
        version: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> NDArray[np.float32]:
        """Logits (B, 2) float32 of raw feature windows (B, 64, 16) float32.

        Args:
            x_BTF: raw feature windows.
            model: served name.
            version: None for the server's newest.
            timeout_s: of each attempt, above 0 and up to 60 s; up to 8 attempts if others' requests
                spoil the batch.

        Raises:
            ServingError: bad windows, a bad timeout, a refusal, no response in time, or an invalid
                response.
        """
        return self.ask(x_BTF, model=model, version=version, timeout_s=timeout_s).logits_BC

    def ask(
        self,
        x_BTF: NDArray[np.float32],
        *,
        model: str = MODEL_NAME,
        version: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> wire.Answer:
        """As `predict`, with the version that responded.

        Raises:
            ServingError: as `predict`.
        """
        self._owner.require()
        within_s = refusals.check(x_BTF, timeout_s)
        with self._faults(f"request to model {model} failed"):
            for _ in range(SPOILED_ATTEMPTS - 1):
                try:
                    return self._attempt(x_BTF, model, version, within_s)
                except grpc.RpcError as error:
                    if not wire.is_spoiled(error):
                        raise
            return self._attempt(x_BTF, model, version, within_s)

    def _attempt(
        self, x_BTF: NDArray[np.float32], model: str, version: int | None, timeout_s: float
    ) -> wire.Answer:
        dtype = self._dtype(model, version, timeout_s)
        try:
            return self._infer(x_BTF, model, version, dtype, timeout_s)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.INVALID_ARGUMENT:
                raise
            # a version of another input type may serve since the type was cached
            self._dtypes.pop((model, version), None)
            if self._dtype(model, version, timeout_s) == dtype:
                raise
        return self._infer(x_BTF, model, version, self._dtypes[model, version], timeout_s)

    def _infer(
        self,
        x_BTF: NDArray[np.float32],
        model: str,
        version: int | None,
        dtype: str,
        timeout_s: float,
    ) -> wire.Answer:
        message = wire.request(x_BTF, model, version, dtype)
        return wire.answer(self._stub.ModelInfer(message, timeout=timeout_s), len(x_BTF))

    def _dtype(self, model: str, version: int | None, timeout_s: float) -> str:
        found = self._dtypes.get((model, version))
        if found is None:
            message = service_pb2.ModelMetadataRequest(name=model, version=wire.text(version))
            metadata = self._stub.ModelMetadata(message, timeout=timeout_s)
            found = self._dtypes[model, version] = wire.input_dtype(metadata)
        return found

    @contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        self._owner.require()
        try:
            yield
        except grpc.RpcError as error:
            raise wire.refusal(error, self.url, what) from error
        except ValueError:  # gRPC's, of a channel that another thread closed
            self._owner.require()
            raise
