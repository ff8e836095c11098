"""The stack on one machine: start, stop and logs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from infra.exit_with_parent import kill_tree
from infra.servers import ServerError, start_error
from infra.services import PORTS, choose
from infra.stack_state import (
    RESPONDS,
    StackState,
    last_ports,
    locked,
    log_path,
    managed,
    pid_path,
    read,
    record_ports,
)
from model_code.errors import ConfigError, TicklineError
from model_code.settings import Settings

UP_TIMEOUT_S = 300
DOWN_TIMEOUT_S = 120  # longer than the grace periods of dependents and servers together
GIVE_UP_AFTER = 2  # restarts of a service until `up` gives up
Say = Callable[[str], None]


def up(
    settings: Settings,
    *,
    triton: bool,
    extra: tuple[str, ...],
    say: Say,
    live: bool = False,
    live_spec: Path | None = None,
) -> StackState:
    """Start the stack and wait until every service responds; a running stack is left unchanged.

    Args:
        settings: of the home folder.
        triton: also run Triton.
        extra: more services.
        say: called with each line for the user.
        live: also run `tickline live`, with Redis and a broker.
        live_spec: YAML for it.

    Raises:
        ServerError: a program is missing, `tickline live` has no version or instruments, or a
            service does not come up; then nothing is left running and the message ends with the
            service's log.
    """
    running = read(settings)
    if running is not None:
        return running
    if managed(settings):
        raise ServerError(
            f"a service manager already runs {', '.join(managed(settings))} of this home",
            where=str(settings.home),
            remedy="nothing is left to start; to change over: systemctl stop tickline.target",
        )
    if triton:
        triton = _prepare_triton(settings, say)
    plan = choose(
        settings,
        triton=triton,
        extra=extra,
        live=live,
        live_spec=live_spec,
        last_ports=last_ports(settings),
    )
    for name, port in plan.ports.items():
        if name in PORTS and port != PORTS[name]:
            say(f"{name} uses port {port}, not the usual {PORTS[name]}")
    log = log_path(settings, "supervisor")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "infra.supervisor", plan.model_dump_json()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TICKLINE_HOME": str(settings.home)},
            start_new_session=True,  # it outlives this terminal
        )
    try:
        state = _await_up(settings, supervisor, say)
        record_ports(settings, plan.ports)
        return state
    except BaseException:
        down(settings)
        raise


def down(settings: Settings) -> bool:
    """Stop the stack and wait until no process is left; False if none was running."""
    if not locked(settings):
        return False
    with suppress(psutil.NoSuchProcess):
        supervisor = _supervisor(settings)
        supervisor.terminate()
        try:
            supervisor.wait(DOWN_TIMEOUT_S)
        except psutil.TimeoutExpired:
            kill_tree(supervisor)
    return True


@retry(
    retry=retry_if_exception_type((OSError, ValueError)),
    stop=stop_after_delay(10),
    wait=wait_fixed(0.1),
    reraise=True,
)
def _supervisor(settings: Settings) -> psutil.Process:
    # it may hold the lock but not have written its pid yet
    return psutil.Process(int(pid_path(settings).read_text()))


def follow(path: Path, lines: int, *, forever: bool) -> Iterator[str]:
    """The last lines of a log and, with `forever`, new ones; after a truncation, from its start.

    Raises:
        ConfigError: there is no such log.
    """
    if not path.exists():
        raise ConfigError("no such log", where=str(path), remedy="see tickline status")
    with path.open(errors="replace") as file:
        yield from file.readlines()[-lines:]
        while forever:
            line = file.readline()
            if line:
                yield line
                continue
            if path.stat().st_size < file.tell():
                file.seek(0)
            time.sleep(0.2)


def _prepare_triton(settings: Settings, say: Say) -> bool:
    """Install Triton if needed; False if a Triton server is running outside the stack."""
    from infra.triton import daemon, install

    if daemon.status(settings) is not None:
        say("Triton is already running (tickline triton up): the stack leaves it alone")
        return False
    try:
        install.install(settings, say=say)
    except ServerError as error:
        raise ServerError(
            error.what, where=error.where, remedy=f"{error.remedy}; or without Triton: --no-triton"
        ) from error
    return True


def _await_up(settings: Settings, supervisor: subprocess.Popen[bytes], say: Say) -> StackState:
    deadline = time.monotonic() + UP_TIMEOUT_S
    seen: set[str] = set()
    while time.monotonic() < deadline:
        state = read(settings)
        code = supervisor.poll()
        if code is not None and not locked(settings):
            raise _broken(settings, "supervisor", f"exited with status {code}")
        for found in state.services if state else ():
            if found.status in RESPONDS and found.name not in seen:
                seen.add(found.name)
                note = f", but does not serve: {found.problem}" if found.problem else ""
                say(f"{found.name:<8} up  {found.address}{note}")
            if found.status == "backing off" and found.restarts >= GIVE_UP_AFTER:
                exited = f"exited with status {found.exit_code}"
                raise _broken(settings, found.name, found.problem or exited)
        if state and all(found.status in RESPONDS for found in state.services):
            return state
        time.sleep(0.2)
    silent = [found.name for found in state.services if found.status != "up"] if state else []
    raise _broken(settings, silent[0] if silent else "supervisor", "did not come up in time")


def _broken(settings: Settings, name: str, reason: str) -> TicklineError:
    return start_error(
        settings, name, reason, log_path(settings, name), f"tickline logs {name} -n 100"
    )
