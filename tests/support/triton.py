"""A real Triton server that a test may kill, stop and start again at the same address."""

import signal
import subprocess
import time
from pathlib import Path

import psutil

from infra.servers import HOST, healthy
from infra.triton.install import install
from infra.triton.key import server_key
from infra.triton.server import Ports, command, environment, ready_url
from infra.triton.shared_memory import sweep
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, Settings
from tests.support.serving import APPROVAL, Names, staged

START_S = 60.0


class TritonProcess:
    """A server of its own with its repository under `home`."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home).resolved()
        self.serving = ServingRepository(self.settings.serving_repository)
        self.ports = Ports.free()
        self.url = f"{HOST}:{self.ports.grpc}"
        self.key = server_key(self.settings)
        self._names = Names()
        self._process: subprocess.Popen[bytes] | None = None
        self.serving.root.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it, with the model if a version serves."""
        installation = install(self.settings)
        self._process = subprocess.Popen(
            command(installation, self.serving.root, self.ports, self.key),
            env=environment(installation),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_S
        while not healthy(ready_url(self.ports)):
            assert self._process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        if self.serving.versions():
            with TritonClient(self.url, self.key) as client:
                client.load(MODEL_NAME)

    def promote(self, version: int, **how: object) -> None:
        """Stage a version unless it was, approve it and let it serve."""
        if version not in self.serving.known():
            folder = staged(self.settings.staging_repository, version, **how)  # type: ignore[arg-type]
            self.serving.publish(folder, APPROVAL)
        with TritonClient(self.url, self.key) as client:
            Swap(self.serving, client, self._names).run("promote", version, None, "f")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:  # it may still answer until all its threads stand
            end = time.monotonic() + START_S
            while psutil.Process(self._process.pid).status() != psutil.STATUS_STOPPED:
                assert time.monotonic() < end
                time.sleep(0.001)

    def kill(self) -> None:
        """Kill it and the processes of its models."""
        if self._process is not None:
            stubs = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            self._process.wait()
            for stub in stubs:
                stub.kill()
            sweep(self.ports.grpc)
            self._process = None
