"""The benchmark's row `triton-grpc`: one engine behind the real server, on this machine.

Shapes: B batch, T = 64 steps, F = 16 features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.triton.engine import serving_engine
from infra.triton.install import BACKENDS, SERVER, installed
from model_code.benchmark.result import LoadRow, Served
from model_code.benchmark.roster import FAILED
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import ServingError
from model_code.repository.triton_config import SERVABLE
from model_code.serving.client import Statistics, TritonClient
from model_code.serving.load import LoadResult, closed_loop, open_loop
from model_code.serving.predictor import TritonPredictor
from model_code.settings import MODEL_NAME, BenchmarkSpec, ServingSpec, Settings

NOT_INSTALLED = "not installed; to install it: tickline triton up"


@dataclass(frozen=True)
class ServedEngine:
    """One engine in a running server, and its client."""

    engine: str
    url: str
    client: TritonClient
    predictor: TritonPredictor

    def under_load(self, windows_BTF: NDArray[np.float32], spec: BenchmarkSpec) -> Served:
        """Measure single requests in the server, then concurrent clients, then a fixed rate."""
        before = self.client.statistics()
        for index in range(len(windows_BTF)):
            self.predictor.predict(windows_BTF[index : index + 1])
        counted = self.client.statistics()
        loads = []
        for clients in spec.concurrency:
            found = closed_loop(
                self.url, windows_BTF, concurrency=clients, requests=spec.concurrent_requests
            )
            loads.append(_load(f"concurrency {clients}", found))
        seconds = spec.open_loop_requests / spec.open_loop_hz
        found = open_loop(self.url, windows_BTF, rate_hz=spec.open_loop_hz, seconds=seconds)
        loads.append(_load(f"open loop, {spec.open_loop_hz:g} requests/s", found))
        return Served(
            engine=self.engine,
            server=SERVER,
            queue_ms=_mean_ms(before, counted, "queue_ns"),
            compute_ms=_mean_ms(before, counted, "compute_infer_ns"),
            loads=tuple(loads),
        )


def unservable(settings: Settings, engine: str) -> str | None:
    """Why the installed server cannot load an engine, known without starting it; else None."""
    if not installed(settings):
        return NOT_INSTALLED
    backend = SERVABLE[engine][1]
    if backend not in BACKENDS:
        return (
            f"{FAILED}: load: the installed server ({SERVER}) has no {backend} backend for {engine}"
        )
    return None


@contextmanager
def served(
    settings: Settings, engine: str, folder: Path, serving: ServingSpec | None = None
) -> Iterator[ServedEngine]:
    """Serve an engine's folder by the installed server, with the settings it would be staged with.

    Raises:
        ServerError: the server does not start.
        ServingError: the engine does not load.
    """
    sidecar = EngineSidecar.load(folder)
    with (
        serving_engine(settings, folder, sidecar, serving) as server,
        TritonClient(server.grpc_url) as client,
    ):
        predictor = TritonPredictor(client, MODEL_NAME, 1)
        yield ServedEngine(engine, server.grpc_url, client, predictor)


def _mean_ms(before: Statistics, after: Statistics, name: str) -> float:
    requests = after.requests - before.requests
    nanoseconds: int = getattr(after, name) - getattr(before, name)
    return nanoseconds / max(1, requests) / 1e6


def _load(load: str, found: LoadResult) -> LoadRow:
    if not len(found.latency_ms_R):
        reasons = "; ".join(f"{text} ({count})" for text, count in found.errors.items())
        raise ServingError(
            f"the server answered none of {found.requests} requests under {load}: {reasons}",
            remedy="see the server's log, or measure without Triton: benchmark.served: false",
        )
    return LoadRow(
        load=load,
        p50_ms=float(np.quantile(found.latency_ms_R, 0.50)),
        p99_ms=float(np.quantile(found.latency_ms_R, 0.99)),
        throughput=found.throughput,
        failed=found.failed,
    )
