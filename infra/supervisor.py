"""The stack's supervisor: one small process that keeps the services running.

`python -m infra.supervisor PLAN` (JSON of `services.Plan`). It holds the stack lock of the home
folder, writes its state atomically, restarts services that exit or stop responding with exponential
back-off, and stops everything at SIGTERM. If it is killed, the services end too, because each runs
under `infra.exit_with_parent`.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from infra.exit_with_parent import adopt_orphans, kill_tree
from infra.process import ProcessId
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
from model_code.errors import StorageError
from model_code.settings import Settings

TICK_S = 0.25
START_TIMEOUT_S = 180.0
PATIENCE_S = 60.0  # a service that does not respond for this long is restarted
STABLE_S = 60.0  # after this long up, earlier failures no longer count
BACK_OFF_S = (1.0, 60.0)
STOP_TIMEOUT_S = 20.0
LOG_BYTES = 10 << 20
ALREADY_RUNNING = 3


class Supervised:
    """One service and its process, driven by `step`."""

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
        self._failures = 0
        self._begun = self._next_start = self._next_probe = self._last_healthy = 0.0

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
        """Start, probe or restart it, whichever is due; `up` names the services that are up."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._next_start and set(self.service.after) <= up:
                self._start(now)
        elif (code := self.process.poll()) is not None:
            self._ended(code if code < 128 else code - 256, now)
        elif now >= self._next_probe:
            self._probe(now)

    def postpone(self) -> None:
        """Skip it for the longest back-off."""
        if self.process is None:
            self.status = "backing off"
        self._next_start = self._next_probe = time.monotonic() + BACK_OFF_S[1]

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.status = "stopping"
        if self.process:
            self.process.terminate()

    def reap(self, deadline: float) -> None:
        """Wait until it has exited; kill it at the deadline (monotonic seconds)."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill_tree(psutil.Process(self.process.pid))
            self.process.wait()
        self._clean_up()

    def _start(self, now: float) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        more = self.service.arguments() if self.service.arguments else []
        variables = os.environ | environment(self.settings) | dict(self.service.environment)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.exit_with_parent", *self.service.command, *more],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )
        self.status, self.started = "starting", time.time()
        self.restarts += 1
        self._begun = self._last_healthy = now
        self._next_probe = now

    def _probe(self, now: float) -> None:
        assert self.process is not None  # noqa: S101
        healthy = self.service.healthy()
        self._next_probe = now + (self.service.probe_s if self.status in RESPONDS else 2 * TICK_S)
        if healthy:
            self._last_healthy = now
            problem = self.service.problem() if self.service.problem else ""
            if problem is None:
                return
            if self.status not in RESPONDS:
                self._came_up()
            self._judge(problem)
            if now - self._begun > STABLE_S:
                self._failures = 0
            return
        patience = START_TIMEOUT_S if self.status == "starting" else PATIENCE_S
        if self.status in RESPONDS:
            self.status = "silent"
        if now - self._last_healthy > patience:
            say(f"{self.service.name} does not respond: killing it")
            kill_tree(psutil.Process(self.process.pid))

    def _judge(self, problem: str) -> None:
        if problem != self.problem:
            name = self.service.name
            say(f"{name} does not serve: {problem}" if problem else f"{name} serves")
        self.problem, self.status = problem, "not serving" if problem else "up"

    def _came_up(self) -> None:
        assert self.process is not None  # noqa: S101
        children = psutil.Process(self.process.pid).children()
        self.pid = children[0].pid if children else self.process.pid
        if self.status == "starting" and self.service.when_up:
            try:
                self.service.when_up(self.pid)
            except Exception as error:  # it must not stop the others
                say(f"{self.service.name} is up, but: {error}")
        self.status = "up"
        say(f"{self.service.name} is up at {self.service.address} (pid {self.pid})")

    def _ended(self, code: int, now: float) -> None:
        self._clean_up()
        self.exit_code = code
        first, longest = BACK_OFF_S
        delay = min(first * 2**self._failures, longest)
        self._failures += 1
        self._next_start = now + delay
        self.status = "backing off"
        say(f"{self.service.name} exited with status {code}; restart in {delay:g} s")

    def _clean_up(self) -> None:
        if self.process and self.process.stdin:
            self.process.stdin.close()
        self.process, self.pid, self.status, self.problem = None, None, "stopped", ""
        if self.service.cleaned:
            self.service.cleaned()


class Group:
    """Services that one process keeps running."""

    def __init__(self, services: Sequence[Supervised]) -> None:
        self.services = services
        self._me = psutil.Process()
        self._others = {child.pid for child in self._me.children()}  # empty except in tests

    def run(self, stop: threading.Event) -> None:
        """Keep all services running until `stop` is set; then stop every process."""
        try:
            while not stop.wait(TICK_S):
                up = {one.service.name for one in self.services if one.status in RESPONDS}
                for found in self.services:
                    self._step(found, up)
                self._write()
        finally:
            self._stop()

    def _step(self, found: Supervised, up: set[str]) -> None:
        restarting = found.process is None
        try:
            found.step(up)
        except OSError as error:  # a full disk, no more processes: the others must keep running
            found.postpone()
            say(f"{found.service.name}: {error}")
        with suppress(OSError):
            rotate(found.log)
        if restarting:
            self._kill_orphans()

    def _stop(self) -> None:
        say("stopping")
        # dependents are stopped first
        dependents = [found for found in self.services if found.service.after]
        for group in (dependents, [found for found in self.services if found not in dependents]):
            for found in group:
                found.terminate()
            self._write()
            deadline = time.monotonic() + STOP_TIMEOUT_S
            for found in group:
                found.reap(deadline)
        self._kill_orphans()
        say("stopped")

    def _write(self) -> None:
        """Called after each round, and when the services begin to stop."""

    def _kill_orphans(self) -> None:
        """Kill orphaned children of a killed launcher: they were re-parented to this process."""
        launchers = {found.process.pid for found in self.services if found.process}
        while orphans := [
            child for child in self._me.children() if child.pid not in launchers | self._others
        ]:
            for orphan in orphans:
                kill_tree(orphan)
                orphan.wait(STOP_TIMEOUT_S)  # reaps the zombie


class Supervisor(Group):
    """All services of a stack; their state is in a file."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__([Supervised(service, settings) for service in build(settings, plan)])
        self.settings, self.plan = settings, plan
        self._written: StackState | None = None

    def _stop(self) -> None:
        super()._stop()
        remove_server_record(self.settings)
        state_path(self.settings).unlink(missing_ok=True)

    def _write(self) -> None:
        state = StackState(
            supervisor=ProcessId.own(),
            plan=self.plan,
            services=tuple(found.state for found in self.services),
        )
        if state == self._written:
            return
        try:
            with atomic_file(state_path(self.settings)) as temporary:
                temporary.write_text(state.model_dump_json(indent=1))
        except StorageError:  # a full disk must not stop the stack; the next step tries again
            return
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
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)  # noqa: T201


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
