"""State of the stack, in files under `<home>/stack`, and where its pages are."""

from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from infra.home.moved import is_own
from infra.process import ProcessId
from infra.servers import HOST
from infra.services import PORTS, Plan
from model_code.artifacts import atomic_file
from model_code.settings import Settings

RESPONDS = ("up", "not serving")
_PORTS = TypeAdapter(dict[str, int])


class ServiceState(BaseModel):
    """One service as seen by its supervisor.

    Attributes:
        status: waiting, starting, up, not serving, silent, backing off, stopping or stopped.
        pid: of the service itself; None while it is not up.
        started: seconds since the epoch.
        restarts: starts after the first.
        exit_code: of its last exit; negative: killed by that signal.
        problem: why it does not serve, and the remedy; empty if it does.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str
    status: str
    address: str
    pid: int | None
    started: float | None
    restarts: int
    exit_code: int | None
    problem: str = ""


class StackState(BaseModel):
    """The supervisor and its services.

    Attributes:
        supervisor: the supervising process.
        home: `identity` of the home folder.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    supervisor: ProcessId
    plan: Plan
    services: tuple[ServiceState, ...]
    home: str = ""

    def service(self, name: str) -> ServiceState | None:
        """The service of that name."""
        return next((found for found in self.services if found.name == name), None)

    @property
    def all_up(self) -> bool:
        """Whether every service is up."""
        return all(found.status == "up" for found in self.services)


def folder(settings: Settings) -> Path:
    """Folder of the stack's lock and state."""
    path = settings.home / "stack"
    path.mkdir(parents=True, exist_ok=True)
    return path


def lock_path(settings: Settings) -> Path:
    """Lock file, held while a supervisor runs."""
    return folder(settings) / "lock"


def pid_path(settings: Settings) -> Path:
    """Pid file of the supervisor that holds the lock."""
    return folder(settings) / "pid"


def state_path(settings: Settings) -> Path:
    """The supervisor's state, JSON of `StackState`."""
    return folder(settings) / "state.json"


def log_path(settings: Settings, service: str) -> Path:
    """Log of a service."""
    return settings.home / "logs" / f"stack-{service}.log"


def service_lock(settings: Settings, service: str) -> Path:
    """Lock file, held while a service manager runs this service (`infra.systemd`)."""
    return folder(settings) / f"service-{service}.lock"


def managed(settings: Settings) -> tuple[str, ...]:
    """Services of this home that a service manager runs."""
    found = []
    for path in sorted(folder(settings).glob("service-*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            found.append(path.stem.removeprefix("service-"))
    return tuple(found)


def read(settings: Settings) -> StackState | None:
    """State of the running stack of this home; None if there is none."""
    try:
        state = StackState.model_validate_json(state_path(settings).read_bytes())
    except (OSError, ValidationError):
        return None
    return state if state.supervisor.lives and is_own(settings, state.home) else None


def record_ports(settings: Settings, ports: Mapping[str, int]) -> None:
    """Record the stack's ports: the next one takes them again, so that old links stay valid."""
    known = last_ports(settings)
    wanted = known | {name: port for name, port in ports.items() if name in PORTS}
    if all(known.get(name, PORTS[name]) == port for name, port in wanted.items()):
        return
    with atomic_file(_ports_path(settings)) as temporary:
        temporary.write_bytes(_PORTS.dump_json(wanted))


def last_ports(settings: Settings) -> dict[str, int]:
    """Ports of this home's services when they last ran, by name; empty if they never did."""
    try:
        found = _PORTS.validate_json(_ports_path(settings).read_bytes())
    except (OSError, ValidationError):
        return {}
    return {name: port for name, port in found.items() if name in PORTS}


def _ports_path(settings: Settings) -> Path:
    return settings.home / "stack" / "ports.json"


def prefect_page(settings: Settings) -> str:
    """Address of Prefect's pages.

    The setting `prefect_ui_url`; else the configured server; else this home's stack, running or
    when it last ran; else the usual port.
    """
    if settings.prefect_ui_url:
        return settings.prefect_ui_url.rstrip("/")
    if settings.prefect_api_url:
        return settings.prefect_api_url.rstrip("/").removesuffix("/api")
    return _of_stack(settings, "prefect")


def mlflow_page(settings: Settings) -> str:
    """Address of MLflow's pages, found as `prefect_page` is."""
    if settings.mlflow_ui_url:
        return settings.mlflow_ui_url.rstrip("/")
    if settings.tracking_uri.startswith("http"):
        return settings.tracking_uri.rstrip("/")
    return _of_stack(settings, "mlflow")


def _of_stack(settings: Settings, service: str) -> str:
    running = read(settings)
    ports = running.plan.ports if running else last_ports(settings)
    return f"http://{HOST}:{ports.get(service, PORTS[service])}"


def locked(settings: Settings) -> bool:
    """Whether a supervisor runs in this home."""
    try:
        with FileLock(lock_path(settings), timeout=0):
            return False
    except Timeout:
        return True
