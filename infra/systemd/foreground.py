"""One service of the stack in the foreground, for a service manager such as systemd.

It is watched and started again as in the stack. The service manager is told when it is ready: it
responds, and of Triton every approved version has been loaded and answers its golden request.
"""

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from infra import stack_state
from infra.exit_with_parent import adopt_orphans
from infra.servers import ServerError, remove_server_record
from infra.services import PORTS, Plan, build
from infra.supervisor import Group, Supervised
from infra.triton import daemon
from infra.triton.server import Ports
from model_code.settings import Settings

SIGN_S = 5.0  # between two signs of life; the units allow a minute
SERVICES = ("prefect", "mlflow", "triton")


class _Foreground(Group):
    """One service; if it never comes up, this process ends too, and is started again."""

    def __init__(self, kept: Supervised, stop: threading.Event) -> None:
        super().__init__([kept])
        self._kept, self._end = kept, stop
        self._notifier = os.environ.pop("NOTIFY_SOCKET", "")  # not for the service itself
        self._ready, self._said, self._next_sign = False, "", 0.0
        self.failed = False

    def _write(self) -> None:
        kept = self._kept
        if not self._ready and kept.status == "backing off":
            self.failed = True
            self._end.set()
        text = f"{kept.service.name} is {kept.status}" + (kept.problem and f": {kept.problem}")
        now, ready = time.monotonic(), self._ready or kept.status == "up"
        if text == self._said and now < self._next_sign:
            return
        lines = ["WATCHDOG=1", f"STATUS={text}"]
        lines += ["READY=1"] if ready and not self._ready else []
        lines += ["STOPPING=1"] if kept.status == "stopping" else []
        notify(self._notifier, *lines)  # raises if it is busy: the next round says the same
        self._said, self._ready, self._next_sign = text, ready, now + SIGN_S


def notify(address: str, *lines: str) -> None:
    """Tell systemd (sd_notify(3)) without waiting; nothing without an address.

    Raises:
        OSError: the service manager is busy or away.
    """
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto("\n".join(lines).encode(), address)


def run(settings: Settings, name: str, ports: dict[str, int] | None = None) -> int:
    """Run a service until SIGTERM; return 1 if it does not come up.

    Args:
        settings: of the home folder.
        name: one of `SERVICES`.
        ports: instead of the usual ones, by the names of `services.PORTS`.

    Raises:
        ServerError: no such service, or another process of this home runs it.
    """
    if name not in SERVICES:
        raise ServerError(
            f"no service named {name!r}", remedy="choose one of " + ", ".join(SERVICES)
        )
    plan = Plan(names=(name,), ports=PORTS | (ports or {}))
    with ExitStack() as held:
        _hold(held, settings, name, stack_state.service_lock(settings, name))
        if name == "triton":
            _hold(held, settings, name, daemon.keeper_lock(settings))
        if stack_state.read(settings) is not None:
            raise _runs(settings, name, "the stack")
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        adopt_orphans()
        own = {port: plan.ports[port] for port in PORTS if port.split("-")[0] == name}
        stack_state.record_ports(settings, own)
        (service,) = build(settings, plan)
        log = stack_state.log_path(settings, name)
        if name == "triton":
            log = daemon.log_path(settings)
            triton = ("triton", "triton-grpc", "triton-metrics")
            http, grpc, metrics = (plan.ports[port] for port in triton)
            daemon.adopt(settings, None, Ports(http=http, grpc=grpc, metrics=metrics))
        group = _Foreground(Supervised(service, settings, log), stop)
        try:
            group.run(stop)
        finally:
            remove_server_record(settings)
    return int(group.failed)


def _hold(held: ExitStack, settings: Settings, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(path, timeout=0))
    except Timeout as error:
        raise _runs(settings, name, "another process") from error


def _runs(settings: Settings, name: str, who: str) -> ServerError:
    return ServerError(
        f"{who} of this home already runs {name}",
        where=str(settings.home),
        remedy="stop it first: tickline down, tickline triton down, or systemctl stop "
        f"tickline-{name}",
    )
