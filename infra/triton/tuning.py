"""Measure settings of the model server on the real server, one engine, at a stated rate.

Shapes: N windows, R requests, T = 64 steps, F = 16 features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.process import cpu_seconds
from infra.triton.engine import serving_engine
from infra.triton.perf_analyzer import open_loop_ms
from infra.triton.server import TritonServer
from model_code.artifacts import atomic_file
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import ServingError
from model_code.repository.config_search import Round
from model_code.repository.manifest import CONFIG_FILE
from model_code.repository.requests import GoldenSet
from model_code.repository.triton_config import model_config
from model_code.serving import golden
from model_code.serving.client import TritonClient
from model_code.serving.load import open_loop
from model_code.settings import MODEL_NAME, ServingSpec, Settings

WARM = 50  # requests before each measurement


@dataclass(frozen=True)
class Bench:
    """A running server with one engine, whose settings change between measurements."""

    server: TritonServer
    client: TritonClient
    sidecar: EngineSidecar
    known: GoldenSet

    def measure(
        self, serving: ServingSpec, x_NTF: NDArray[np.float32], rate_hz: float, seconds: float
    ) -> Round:
        """Load the engine with these settings, prove its answers, and send requests at the rate.

        Raises:
            ServingError: it does not load, answers wrongly, or answers nothing.
        """
        self.apply(serving)
        for number in range(WARM):
            self.client.predict(x_NTF[number % len(x_NTF)][None])
        pids = {"server": self.server.pid}
        before = cpu_seconds(pids)["server"]
        found = open_loop(self.server.grpc_url, x_NTF, rate_hz=rate_hz, seconds=seconds)
        spent_s = cpu_seconds(pids)["server"] - before
        if not len(found.latency_ms_R):
            raise ServingError(
                f"none of {found.requests} requests was answered with {serving.text}",
                where=str(self.server.log),
                remedy="read the server's log; lower --rate",
            )
        return Round(
            p50_ms=found.percentile_ms(50),
            p99_ms=found.percentile_ms(99),
            processor_us=spent_s / found.requests * 1e6,
            unanswered=found.failed,
        )

    def apply(self, serving: ServingSpec) -> None:
        """Load the engine with these settings.

        Raises:
            ServingError: it does not load, or a golden request is answered wrongly.
        """
        with atomic_file(self.server.repository / MODEL_NAME / CONFIG_FILE) as path:
            path.write_text(model_config(self.sidecar, serving))
        self.client.unload(MODEL_NAME)
        self.client.load(MODEL_NAME)
        golden.prove(self.client, self.known)

    def perf_analyzer_ms(self, rate_hz: float, seconds: float) -> tuple[float, float] | None:
        """p50 and p99 of the loaded settings by NVIDIA's tool; None where it is not installed."""
        return open_loop_ms(self.server.grpc_url, rate_hz, seconds)


@contextmanager
def tuning_bench(
    settings: Settings, engine_folder: Path, sidecar: EngineSidecar, known: GoldenSet
) -> Iterator[Bench]:
    """Run a server of its own for the block; the serving one is not touched.

    Args:
        settings: location of the installation and of the log.
        engine_folder: with engine and sidecar.
        sidecar: of the engine.
        known: golden requests that every setting must answer.

    Raises:
        EngineError: Triton has no backend for the engine.
        ServerError: the server cannot be installed or does not start.
        ServingError: the engine does not load.
    """
    with (
        serving_engine(settings, engine_folder, sidecar) as server,
        server.client() as client,
    ):
        yield Bench(server, client, sidecar, known)
