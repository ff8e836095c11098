"""Faults of the Triton server beside eight sound clients: `python -m flows.demos.serving_faults`.

The real server of `tickline triton up` in a temporary home folder. Bad requests, and processes
stopped and killed, while the clients ask at a steady rate; each answer is compared with the
engine's own in this process. Exit status 1 if a sound request failed or was answered wrongly.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import grpc
import httpx
import psutil
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import service_pb2, service_pb2_grpc

from flows.cli.options import market_uri, settings_from_environment
from flows.demos.live_load import SIMULATED
from flows.demos.live_rig import private
from flows.demos.live_version import provide
from flows.demos.sound_clients import CLIENTS, Seen, SoundClients
from infra.process import ProcessId
from infra.triton import daemon
from infra.triton.server import Ports
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import TicklineError
from model_code.repository.serving import ServingRepository
from model_code.serving.servers import golden_of
from model_code.settings import FEATURE_COUNT, INPUT_NAME, MODEL_NAME, SEQUENCE_LENGTH, Settings

out = Console(highlight=False)
SHAPE = (SEQUENCE_LENGTH, FEATURE_COUNT)
WINDOW = bytes(4 * SEQUENCE_LENGTH * FEATURE_COUNT)
GIANT = {
    "inputs": [{"name": INPUT_NAME, "datatype": "FP32", "shape": [10**8, *SHAPE], "data": [1.0]}]
}
BAD_REQUESTS = 100
STOPPED_S = 5.0
BAD_TIMEOUT_S = 10.0


class Desk:
    """A home folder whose version a kept server serves.

    Args:
        settings: of the home.
        ports: of the server.
    """

    def __init__(self, settings: Settings, ports: Ports) -> None:
        self.settings, self.ports = settings, ports
        self.url = daemon.up(settings, ports).grpc_url

    @property
    def server(self) -> ProcessId | None:
        """The server's process; None while it is away."""
        found = daemon.status(self.settings)
        with suppress(psutil.NoSuchProcess):
            return None if found is None else ProcessId.of(found.pid)
        return None

    def giant(self) -> str:
        """Send an HTTP request for 10^8 windows in a few bytes."""
        url = f"http://127.0.0.1:{self.ports.http}/v2/models/{MODEL_NAME}/infer"
        try:
            answer = httpx.post(url, json=GIANT, timeout=BAD_TIMEOUT_S, trust_env=False)
        except httpx.HTTPError as error:
            return type(error).__name__
        return f"refused ({answer.status_code})" if answer.is_error else "answered"

    def batch(self, size: int) -> str:
        """Send gRPC requests with a batch dimension that does not fit their one window."""
        message = service_pb2.ModelInferRequest(
            model_name=MODEL_NAME,
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(
                    name=INPUT_NAME, datatype="FP32", shape=(size, *SHAPE)
                )
            ],
            raw_input_contents=[WINDOW],
        )
        refused = 0
        with grpc.insecure_channel(self.url) as channel:
            infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            for _ in range(BAD_REQUESTS):
                try:
                    infer(message, timeout=BAD_TIMEOUT_S)
                except grpc.RpcError:
                    refused += 1
        return f"{refused} of {BAD_REQUESTS} refused"

    def model_process(self) -> psutil.Process:
        """The process that computes the serving version.

        Raises:
            TicklineError: there is none.
        """
        route = ServingRepository(self.settings.serving_repository).route()
        server = self.server
        if server is not None and route.champion is not None:
            part = f"{MODEL_NAME}/{route.champion.version}/"
            for child in psutil.Process(server.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if any(part in word for word in child.cmdline()):
                        return child
        raise TicklineError("the serving version has no process")

    def stop_model(self) -> str:
        """Stop the model's process for seconds, then let it continue."""
        process = self.model_process()
        process.suspend()
        time.sleep(STOPPED_S)
        with suppress(psutil.NoSuchProcess):
            process.resume()
        return f"stopped for {STOPPED_S:g} s"

    def kill_model(self) -> str:
        """Kill the model's process."""
        self.model_process().kill()
        return "killed"

    def kill_server(self) -> str:
        """Kill the server."""
        server = self.server
        if server is not None:
            os.kill(server.pid, signal.SIGKILL)
        return "killed"

    def restart(self) -> str:
        """Stop the server and start it again, as an operator does."""
        daemon.down(self.settings)
        daemon.up(self.settings, self.ports)
        return "down, up"


@dataclass(frozen=True)
class Row:
    """One fault, and what the sound clients saw of it."""

    fault: str
    did: str
    seen: Seen
    restarts: int


def main(
    data: Annotated[str | None, typer.Option(help="Market store; default: simulated.")] = None,
    rate: Annotated[float, typer.Option(help="Requests a second of each client.", min=1)] = 10.0,
    settle: Annotated[float, typer.Option(help="Seconds after each fault.", min=1)] = 12.0,
) -> None:
    """Play every fault; exit 1 if a sound request failed or was answered wrongly."""
    source = settings_from_environment()
    home = Path(tempfile.mkdtemp(prefix="tickline-faults-"))
    settings = private(home)
    try:
        provide(settings, source, market_uri(data, source) or SIMULATED, out.print)
        sound = play(settings, rate, settle)
    finally:
        daemon.down(settings)
        shutil.rmtree(home, ignore_errors=True)
    raise typer.Exit(0 if sound else 1)


def play(settings: Settings, rate: float, settle: float) -> bool:
    """Play the faults one after another and print the table; whether all is well."""
    repository = ServingRepository(settings.serving_repository)
    champion = repository.route().champion
    if champion is None:
        raise TicklineError("no version serves", remedy="give a home with a version")
    folder = repository.folder(champion.version)
    x_NTF = golden_of(repository, champion.version).x_NTF
    engine = ENGINES[EngineSidecar.load(folder).engine].load(folder)
    desk = Desk(settings, Ports.free())
    faults: list[tuple[str, Callable[[], str]]] = [
        ("none", lambda: "nothing"),
        ("HTTP request of 10^8 windows", desk.giant),
        ("gRPC batch dimension 0", lambda: desk.batch(0)),
        ("gRPC batch dimension 2^32", lambda: desk.batch(2**32)),
        ("model's process stopped, continued", desk.stop_model),
        ("model's process killed", desk.kill_model),
        ("server killed", desk.kill_server),
        ("server restarted", desk.restart),
    ]
    rows = []
    expected_NC = engine.predict(x_NTF)
    with SoundClients(desk.url, champion.version, x_NTF, expected_NC, rate) as clients:
        for fault, act in faults:
            clients.take()
            with _Restarts(desk) as restarts:
                did = act()
                time.sleep(settle)
            rows.append(Row(fault, did, clients.take(), restarts.count))
            out.print(f"{fault}: {did}")
    _print(rows)
    total = clients.total
    for reason, count in total.errors.most_common(3):
        out.print(f"{count} failed: {reason}")
    out.print(
        f"sound requests {total.requests} failed {total.failed} wrong {total.wrong}, "
        f"server restarts {sum(row.restarts for row in rows)}, "
        f"longest gap {max(row.seen.gap_s for row in rows):.1f} s",
        soft_wrap=True,
    )
    return total.requests > 0 and not total.failed and not total.wrong


class _Restarts:
    """Counts the server's new processes during a block."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._before, self._seen = desk, desk.server, set[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "_Restarts":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def count(self) -> int:
        """New processes so far."""
        return len(self._seen)

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            now = self._desk.server
            if now is not None and now != self._before:
                self._seen.add(f"{now.pid} {now.birth}")


def _print(rows: list[Row]) -> None:
    table = Table(box=box.SIMPLE_HEAD, title=f"{CLIENTS} sound clients beside each fault")
    table.add_column("fault")
    for heading in ("answered", "failed", "wrong", "gap (s)", "restarts"):
        table.add_column(heading, justify="right")
    for row in rows:
        seen = row.seen
        cells = (seen.answered, seen.failed, seen.wrong, f"{seen.gap_s:.1f}", row.restarts)
        table.add_row(row.fault, *map(str, cells))
    out.print(table)


if __name__ == "__main__":
    typer.run(main)
