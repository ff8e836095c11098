"""The live path on real processes in a folder of its own: broker, Redis, Triton, service.

Everything listens on free ports of loopback and ends with the block, or with this process. The
broker is Tansu, or for measurements librdkafka's mock cluster; neither is Kafka.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from infra import services
from infra.exit_with_parent import kill_tree
from infra.live.kafka import mock_cluster
from infra.live.kafka.clients import DEMO, KafkaSpec, create_topics, dead_letters
from infra.live.spec import ServiceSpec
from infra.servers import HOST, ServerError, environment, free_port
from infra.services import PORTS, Plan
from model_code.live.groups import groups
from model_code.market.store import open_market
from model_code.repository.manifest import Approval, Manifest
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.repository.staging import staged_versions
from model_code.settings import MODEL_NAME, Settings

START_S = 60.0
STOP_S = 30.0
POLL_S = 0.02
# its long poll does not end when a message comes; with a shorter session nobody can join
MOCK = {"fetch_wait_ms": 1, "linger_ms": 0, "session_timeout_ms": 6000}
APPROVAL = Approval(
    reviewer="live rig", at="1970-01-01T00:00:00+00:00", reason="a measurement in a folder of its "
    "own, not a promotion", started_by="live rig", flow_run_id="none",
)  # fmt: skip


class Process:
    """A process of the rig; may be killed and started again.

    Args:
        name: of its log.
        command: its command line.
        folder: of its log.
        healthy: whether it responds.
        variables: environment besides this process's.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        healthy: Callable[["Process"], bool],
        variables: Mapping[str, str],
    ) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self._command, self._healthy, self._variables = list(command), healthy, variables
        self._launcher: subprocess.Popen[bytes] | None = None
        self._from = 0

    def start(self, *, wait: bool = True) -> "Process":
        """Start it.

        Raises:
            ServerError: it exits, or does not respond in time.
        """
        with self.log.open("ab") as output:
            self._from = output.tell()
            self._launcher = subprocess.Popen(
                [sys.executable, "-m", "infra.exit_with_parent", *self._command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(self._variables),
                start_new_session=True,
            )
        if wait:
            self.await_ready()
        return self

    def await_ready(self) -> None:
        """Wait until it responds.

        Raises:
            ServerError: it exits, or does not respond in time.
        """
        until = time.monotonic() + START_S
        while not self._healthy(self):
            ended = self._launcher is None or self._launcher.poll() is not None
            if ended or time.monotonic() > until:
                tail = "\n".join(self.text.splitlines()[-8:])
                raise ServerError(f"{self.name} did not start:\n{tail}", where=str(self.log))
            time.sleep(POLL_S)

    def await_text(self, text: str) -> None:
        """Wait until its log has a text.

        Raises:
            ServerError: it does not come in time.
        """
        until = time.monotonic() + START_S
        while text not in self.text:
            if not self.running or time.monotonic() > until:
                raise ServerError(f"{self.name} did not print {text!r}:\n{self.text[-2000:]}")
            time.sleep(POLL_S)

    @property
    def text(self) -> str:
        """Its log since the last start."""
        return self.log.read_bytes()[self._from :].decode(errors="replace")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._launcher is not None and self._launcher.poll() is None

    @property
    def child(self) -> psutil.Process:
        """The process itself, without its launcher."""
        assert self._launcher is not None  # noqa: S101
        return psutil.Process(self._launcher.pid).children()[0]

    def kill(self) -> None:
        """SIGKILL, and its descendants too."""
        if self.running:
            kill_tree(self.child)
            self.end()

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        if self.running:
            self.child.terminate()
        return self.end()

    def end(self) -> int:
        """Wait for its end; its exit status."""
        assert self._launcher is not None  # noqa: S101
        try:
            status = self._launcher.wait(STOP_S)
        except subprocess.TimeoutExpired:
            kill_tree(self.child)
            status = self._launcher.wait()
        if self._launcher.stdin:
            self._launcher.stdin.close()
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself."""
        self.child.send_signal(number)


class Rig:
    """Broker, Redis and Triton that run, and services to start.

    Args:
        settings: of the rig's home folder.
        store: URI of the ticks.
        servers: by name: tansu or mock, and where wanted redis and triton.
        spec: of the services.
        redis_url: of the Redis server, if it is one of them.
    """

    def __init__(
        self,
        settings: Settings,
        store: str,
        servers: Mapping[str, Process],
        spec: ServiceSpec,
        redis_url: str = "",
    ) -> None:
        self.settings, self.store, self.servers, self.spec = settings, store, servers, spec
        self.kafka = spec.kafka
        self.redis_url = redis_url
        self.services: list[Process] = []

    def service(self, *options: str, wait: bool = True, **changes: Any) -> Process:
        """Start `tickline live`.

        Args:
            options: of the command, besides store and specification.
            wait: until it consumes.
            changes: of the specification, for example `report_s=1.0`.
        """
        number = len(self.services)
        path = self.settings.home / f"live-{number}.yaml"
        path.write_text(self.spec.model_copy(update=changes).model_dump_json())
        command = [sys.executable, "-m", "flows.cli", "live", "--data", self.store]
        command += [] if "triton" in self.servers else ["--in-process"]
        command += ["--redis", self.redis_url] if "redis" in self.servers else []
        variables = environment(self.settings) | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        process = Process(
            f"service-{number}",
            [*command, "--spec", str(path), *options],
            self.settings.home,
            lambda one: f"-> {self.kafka.decisions}" in one.text,
            variables,
        )
        self.services.append(process)
        return process.start(wait=wait)

    def keys(self, manifest: Manifest) -> dict[str, str]:
        """Key of each instrument's group, by the leaders of a version."""
        symbols = {day.symbol for day in open_market(self.store).catalog()}
        members = groups(manifest.seen.leaders, symbols)
        return {symbol: key for key, names in members.items() for symbol in names}

    def pids(self) -> dict[str, int]:
        """Pid of each running process by name, and of this one."""
        names = {"tansu": "broker", "mock": "broker"}
        found = {names.get(name, name): one.child.pid for name, one in self.servers.items()}
        found |= {one.name.partition("-")[0]: one.child.pid for one in self.services if one.running}
        return found | {"load": os.getpid()}


@contextmanager
def rig(
    settings: Settings, store: str, *, names: Sequence[str] = ("tansu",), **kafka: Any
) -> Iterator[Rig]:
    """Servers for the duration of the block, in a home folder with a version that serves.

    Args:
        settings: of the home folder.
        store: URI of the ticks.
        names: of servers: tansu or mock (`infra.live.kafka.mock_cluster`), redis, triton.
        kafka: changes of the demo broker's settings.

    Raises:
        ServerError: one does not start.
    """
    home = settings.home
    ports = {name: free_port() for name in PORTS if name.split("-")[0] in names}
    servers: dict[str, Process] = {}
    with ExitStack() as running:
        planned = tuple(name for name in names if name != "mock")
        for one in services.build(settings, Plan(names=planned, ports=ports)):
            process = Process(one.name, one.command, home, responds(one), one.environment)
            running.callback(process.kill)
            if one.cleaned is not None:
                running.callback(one.cleaned)
            servers[one.name] = process.start()
        if "triton" in servers:
            address = f"{HOST}:{ports['triton-grpc']}"
            settings = settings.model_copy(update={"triton_url": address})
            load_champion(settings)
        if "mock" in names:
            servers["mock"] = mock_broker(home)
            running.callback(servers["mock"].kill)
            bootstrap, kafka = servers["mock"].text.strip(), MOCK | kafka
        else:
            bootstrap = f"{HOST}:{ports['tansu']}"
        spec = ServiceSpec(kafka=KafkaSpec(bootstrap=bootstrap, **(DEMO | kafka)))
        found = Rig(settings, store, servers, spec, f"redis://{HOST}:{ports.get('redis', 0)}")
        letters = [dead_letters(topic) for topic in spec.kafka.ticks]
        topics = [*spec.kafka.ticks, *letters, spec.kafka.decisions]
        if "mock" in names:
            mock_cluster.create_topics(bootstrap, topics)
        else:
            create_topics(spec.kafka, topics)
        try:
            yield found
        finally:
            for service in found.services:
                service.kill()


def mock_broker(folder: Path) -> Process:
    """Start librdkafka's mock cluster.

    Raises:
        ServerError: it does not start.
    """
    command = [sys.executable, "-m", mock_cluster.__name__]
    return Process("mock", command, folder, lambda one: one.text.endswith("\n"), {}).start()


def responds(service: services.Service) -> Callable[[Process], bool]:
    """Whether a service of the stack responds."""
    return lambda _: service.healthy()


def load_champion(settings: Settings) -> None:
    """Load the serving version into the rig's Triton."""
    from infra.triton.key import control_key
    from model_code.serving.client import TritonClient

    with TritonClient(str(settings.triton_url), control_key(settings)) as client:
        client.load(MODEL_NAME)


def private(home: Path) -> Settings:
    """Settings of a rig's own home folder: no server of the caller's is used."""
    return Settings(
        home=home, prefect_api_url=None, mlflow_tracking_uri=None, triton_url=None
    ).resolved()


def adopt(settings: Settings, source: Settings, versions: Sequence[int] = ()) -> list[int]:
    """Copy versions of another home into the rig's and let the first of them serve.

    Args:
        settings: the rig's.
        source: of the home with the versions.
        versions: which; none: the serving one, else the newest staged.

    Returns:
        The versions; none if the source has none.
    """
    theirs, mine = (ServingRepository(one.serving_repository) for one in (source, settings))
    staging = source.staging_repository / MODEL_NAME
    folders = {one: staging / str(one) for one in staged_versions(source.staging_repository)}
    folders |= {one: theirs.folder(one) for one in theirs.known()}
    champion = theirs.route().champion
    wanted = list(versions) or ([champion.version] if champion else sorted(folders)[-1:])
    for version in wanted:
        target = settings.staging_repository / MODEL_NAME / str(version)
        shutil.copytree(folders[version], target, dirs_exist_ok=True)
        mine.publish(target, APPROVAL)
    if wanted:
        mine.arrange(wanted[:1])
        Route(champion=Target(model=MODEL_NAME, version=wanted[0])).save(mine.route_file)
    return wanted
