"""The stack's supervisor: one small process that keeps the services running.

`python -m infra.supervisor PLAN` (JSON of `services.Plan`). It holds the stack lock of the home
folder, writes its state atomically, restarts services that exit or stop responding with exponential
back-off, and stops everything at SIGTERM. If it is killed, the services end too, because each runs
under `infra.exit_with_parent`.

Health checks and whatever else of a service may take long run in the background, and an error of
one service is logged and restarts that service: neither concerns the others.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from filelock import FileLock, Timeout

from infra.background import in_background
from infra.exit_with_parent import adopt_orphans, kill_tree, launcher
from infra.home.moved import identity
from infra.process import ProcessId
from infra.redact import redact
from infra.servers import environment, remove_server_record
from infra.services import Plan, Service, build
from infra.stack_state import (
    RESPONDS,
    ServiceState,
    StackState,
    lock_path,
    log_path,
    pid_path,
    state_path,
)
from model_code.artifacts import atomic_file
from model_code.settings import Settings

TICK_S = 0.25
START_TIMEOUT_S = 180.0
SILENT_S = 15.0  # a health check that takes longer shows as silent
STABLE_S = 60.0  # after this long up, earlier failures no longer count
BACK_OFF_S = (1.0, 60.0)
LAUNCHER_S = 5.0  # its launcher kills a service after the grace period; this is for the launcher
ORPHANS_S = 10.0
LOG_BYTES = 10 << 20
ALREADY_RUNNING = 3
T = TypeVar("T")


@dataclass(frozen=True)
class _Look:
    """What a health check found.

    Attributes:
        problem: as `Service.problem`.
        pid: of the service itself; None: it is not known to be up.
    """

    healthy: bool
    problem: str | None = None
    pid: int | None = None


class Supervised:
    """One service and its process, driven by `step`, which never waits."""

    def __init__(self, service: Service, settings: Settings, log: Path | None = None) -> None:
        self.service = service
        self.settings = settings
        self.log = log or log_path(settings, service.name)
        self.process: subprocess.Popen[bytes] | None = None
        self.status = "waiting"
        self.problem = ""
        self.pid: int | None = None
        self.restarts = -1  # the first start is not a restart
        self.exit_code: int | None = None
        self.started = 0.0
        self.announced = False  # whether a process of it has come up
        self._failures = 0
        self._begun = self._next_start = self._next_probe = self._last_healthy = 0.0
        self._kill_at: float | None = None
        self._arguments: Future[list[str]] | None = None
        self._probing: Future[_Look] | None = None
        self._said = ""

    @property
    def state(self) -> ServiceState:
        """Its state as stored and shown."""
        return ServiceState(
            name=self.service.name,
            status=self.status,
            address=self.service.address,
            pid=self.pid,
            started=self.started if self.process else None,
            restarts=max(self.restarts, 0),
            exit_code=self.exit_code,
            problem=self.problem,
        )

    def step(self, up: set[str]) -> None:
        """Start, probe, stop or restart it, whichever is due; `up`: names of what is up."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._next_start and set(self.service.after) <= up:
                self._start(now)
        elif (code := self.process.poll()) is not None:
            self._ended(code if code < 128 else code - 256, now)
        elif self._kill_at is not None:
            if now >= self._kill_at:
                kill_tree(psutil.Process(self.process.pid))
        else:
            self._probe(now)

    def failed(self, error: Exception) -> None:
        """After an exception in `step`: log it; a service that did not start backs off."""
        text = f"{type(error).__name__}: {error}"
        self._say_once(text)
        if self.process is None:
            self._arguments = None
            self._back_off(time.monotonic())
            self.problem = f"it cannot be started: {redact(text)}"

    def terminate(self) -> None:
        """Send SIGTERM; SIGKILL follows after the grace period (`step`, `reap`)."""
        self.status = "stopping"
        if self.process:
            self.process.terminate()
            self._kill_at = time.monotonic() + self.service.grace_s + LAUNCHER_S

    def reap(self) -> None:
        """Wait until it has exited; kill it when its time is over."""
        if self.process is None:
            return
        end = self._kill_at or 0.0
        try:
            self.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._say_once("did not stop in time: killing it")
            kill_tree(psutil.Process(self.process.pid))
            self.process.wait(ORPHANS_S)
        self._clean_up()

    def _start(self, now: float) -> None:
        if self._arguments is None:
            self._arguments = in_background(self.service.arguments or list)
        if not self._arguments.done():
            return
        self.restarts += 1
        more = self._arguments.result()
        self._arguments = None
        self.log.parent.mkdir(parents=True, exist_ok=True)
        variables = os.environ | environment(self.settings) | dict(self.service.environment)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*launcher(self.service.grace_s), *self.service.command, *more],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )
        self.status, self.started, self.problem = "starting", time.time(), ""
        self._begun = self._last_healthy = self._next_probe = now
        self._kill_at, self._probing = None, None

    def _probe(self, now: float) -> None:
        assert self.process is not None  # noqa: S101
        silent_s = now - self._last_healthy
        if silent_s > self.service.probe_s + SILENT_S and self.status in RESPONDS:
            self.status = "silent"
        if silent_s > (START_TIMEOUT_S if self.status == "starting" else self.service.patience_s):
            say(f"{self.service.name} does not respond: stopping it")
            self.terminate()
            return
        if self._probing is None and now >= self._next_probe:
            launched, known = self.process.pid, self.pid
            self._probing = in_background(lambda: self._look(launched, known))
        if self._probing is not None and self._probing.done():
            looked, self._probing = self._probing, None
            probe_s = self.service.probe_s if self.status in RESPONDS else 2 * TICK_S
            self._next_probe = now + probe_s
            self._judge(looked.result(), now)  # may raise: counts as no response

    def _look(self, launched: int, pid: int | None) -> _Look:
        """The health check; runs in the background, so it only returns what it found."""
        if not self.service.healthy():
            return _Look(healthy=False)
        problem = self.service.problem() if self.service.problem else ""
        if problem is None or pid is not None:
            return _Look(healthy=True, problem=problem, pid=pid)
        children = psutil.Process(launched).children()
        pid = children[0].pid if children else launched
        self.announced = True  # before others learn of it and may kill it
        if self.service.when_up:
            try:
                self.service.when_up(pid)
            except Exception as error:  # it is up all the same
                say(f"{self.service.name} is up, but: {error}")
        return _Look(healthy=True, problem=problem, pid=pid)

    def _judge(self, look: _Look, now: float) -> None:
        if not look.healthy:
            if self.status in RESPONDS:
                self.status = "silent"
            return
        self._last_healthy = now
        if look.problem is None:
            return
        if self.status not in RESPONDS:
            self.status, self.pid, self._said = "up", look.pid, ""
            say(f"{self.service.name} is up at {self.service.address} (pid {self.pid})")
        if look.problem != self.problem:
            name, found = self.service.name, look.problem
            say(f"{name} does not serve: {found}" if found else f"{name} serves")
        self.problem = look.problem
        self.status = "not serving" if look.problem else "up"
        if now - self._begun > STABLE_S:
            self._failures = 0

    def _ended(self, code: int, now: float) -> None:
        self._clean_up()
        self.exit_code = code
        delay = self._back_off(now)
        say(f"{self.service.name} exited with status {code}; restart in {delay:g} s")

    def _back_off(self, now: float) -> float:
        first, longest = BACK_OFF_S
        delay = min(first * float(2 ** min(self._failures, 32)), longest)
        self._failures += 1
        self._next_start = now + delay
        self.status = "backing off"
        return delay

    def _clean_up(self) -> None:
        if self.process and self.process.stdin:
            with suppress(OSError):
                self.process.stdin.close()
        self.process, self.pid, self.status, self.problem = None, None, "stopped", ""
        self._kill_at = self._probing = self._arguments = None
        if self.service.cleaned:
            try:
                self.service.cleaned()
            except Exception as error:
                self._say_once(f"{type(error).__name__}: {error}")

    def _say_once(self, text: str) -> None:
        """Log it unless it is what was logged last: a step comes four times a second."""
        if text != self._said:
            say(f"{self.service.name}: {text}")
        self._said = text


class Group:
    """Services that one process keeps running; an error of one does not concern the others."""

    def __init__(self, services: Sequence[Supervised]) -> None:
        self.services = services
        self._me = psutil.Process()
        self._others = {child.pid for child in self._me.children()}  # empty except in tests
        self._said = ""

    def run(self, stop: threading.Event) -> None:
        """Keep all services running until `stop` is set; then stop every process."""
        left: bool | None = False
        try:
            while not stop.wait(TICK_S):
                up = {one.service.name for one in self.services if one.status in RESPONDS}
                if left or any(found.process is None for found in self.services):
                    left = self._safely(self._kill_orphans)
                for found in self.services:
                    self._step(found, up)
                self._safely(self._write)
        finally:
            self._stop()

    def _step(self, found: Supervised, up: set[str]) -> None:
        try:
            found.step(up)
        except Exception as error:
            found.failed(error)
        with suppress(OSError):
            rotate(found.log)

    def _stop(self) -> None:
        say("stopping")
        # dependents are stopped first
        dependents = [found for found in self.services if found.service.after]
        for group in (dependents, [found for found in self.services if found not in dependents]):
            for found in group:
                self._safely(found.terminate)
            self._safely(self._write)
            for found in group:
                self._safely(found.reap)
        end = time.monotonic() + ORPHANS_S
        while self._safely(self._kill_orphans) and time.monotonic() < end:
            time.sleep(TICK_S / 5)
        say("stopped")

    def _write(self) -> None:
        """Called after each round, and when the services begin to stop."""

    def _safely(self, action: Callable[[], T]) -> T | None:
        """Its result; None after an error, e.g. of a full disk. The next round tries again."""
        try:
            found = action()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if text != self._said:  # four rounds a second
                say(text)
            self._said = text
            return None
        return found

    def _kill_orphans(self) -> bool:
        """Kill orphaned children of a killed launcher: they were re-parented to this process.

        Returns:
            Whether there were any; a killed process may take a while to be gone.
        """
        launchers = {found.process.pid for found in self.services if found.process}
        orphans = [
            child for child in self._me.children() if child.pid not in launchers | self._others
        ]
        for orphan in orphans:
            kill_tree(orphan)
            with suppress(psutil.Error):  # it includes that it is not gone yet
                orphan.wait(0)  # reaps the zombie
        return bool(orphans)


class Supervisor(Group):
    """All services of a stack; their state is in a file."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__([Supervised(service, settings) for service in build(settings, plan)])
        self.settings, self.plan = settings, plan
        self._written: StackState | None = None

    def _stop(self) -> None:
        super()._stop()
        with suppress(OSError):
            remove_server_record(self.settings)
        with suppress(OSError):
            state_path(self.settings).unlink(missing_ok=True)

    def _write(self) -> None:
        state = StackState(
            supervisor=ProcessId.own(),
            plan=self.plan,
            services=tuple(found.state for found in self.services),
            home=identity(self.settings),
        )
        if state == self._written:
            return
        with atomic_file(state_path(self.settings)) as temporary:
            temporary.write_text(state.model_dump_json(indent=1))
        self._written = state


def rotate(log: Path) -> None:
    """Copy a log that is too long to `.1` and truncate it.

    Writers have it open for appending, so it is not renamed.
    """
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


def say(text: str) -> None:
    """Write a line to the supervisor's log."""
    with suppress(OSError):  # the disk may be full
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {redact(text)}", flush=True)  # noqa: T201


def main(plan_json: str) -> int:
    """Supervise until SIGTERM; return 3 if another supervisor runs in this home."""
    settings = Settings().resolved()
    lock = FileLock(lock_path(settings), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return ALREADY_RUNNING
    pid_path(settings).write_text(str(os.getpid()))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    adopt_orphans()
    try:
        Supervisor(settings, Plan.model_validate_json(plan_json)).run(stop)
    finally:
        pid_path(settings).unlink(missing_ok=True)
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
