"""A tickline command with faults injected into stages of its nightly.

    python -m tests.chaos.victim FAULT@STAGE... -- COMMAND...

Without arguments it imports Tickline first and then waits for one line of JSON on standard input:
the faults, the command, its environment variables and the file for its output.

kill     SIGKILL when the stage's function has returned and nothing of that is recorded yet
epoch    SIGKILL when an epoch's checkpoint is on disk (stage: train)
memory   before the stage, address space is limited to 16 MiB more than the process has
fill     before the stage, the file system of the home folder is filled up
clock    before the stage, the wall clock goes back an hour
pause    before the stage, a file `<home>/paused` is written; the stage waits until it is removed
"""

import datetime as dt
import functools
import importlib
import inspect
import json
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import time_machine

from infra.servers import environment
from model_code.settings import Settings


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_after_an_epoch() -> None:
    checkpoints = Settings().resolved().checkpoints

    def watch() -> None:
        while not list(checkpoints.rglob("*.pt")):
            time.sleep(0.01)
        kill()

    threading.Thread(target=watch, daemon=True).start()


def limit_memory() -> None:
    limit = psutil.Process().memory_info().vms + (16 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def fill_disk() -> None:
    ballast = Settings().resolved().home / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 20)):
                pass
        except OSError:
            return


def set_clock_back() -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    time_machine.travel(past, tick=True).start()  # in C, for the whole process


def pause() -> None:
    paused = Settings().resolved().home / "paused"
    paused.touch()
    while paused.exists():
        time.sleep(0.05)


BEFORE: dict[str, Callable[[], None]] = {
    "epoch": kill_after_an_epoch,
    "memory": limit_memory,
    "fill": fill_disk,
    "clock": set_clock_back,
    "pause": pause,
}


def with_fault(fault: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def faulty(*arguments: Any, **named: Any) -> Any:
        send_events()
        if fault != "kill":
            BEFORE[fault]()
        result = function(*arguments, **named)
        if fault == "kill":
            kill()
        return result

    return faulty


def send_events() -> None:
    """The Prefect server hears of the stages before this one, whatever happens now."""
    from prefect.events.worker import EventsWorker

    EventsWorker.instance().wait_until_empty()


def stage_modules() -> Iterator[ModuleType]:
    from tasks import nightly

    for file in pkgutil.iter_modules(nightly.__path__):
        yield importlib.import_module(f"{nightly.__name__}.{file.name}")


def inject(fault: str, stage: str) -> None:
    """Put the fault into the stage: a task, or a plain function of the flow."""
    from prefect import Task

    # they import the plain functions by name, so that it would be too late to replace these
    assert not {"flows.nightly", "flows.candidate"} & sys.modules.keys()
    found = set()
    for module in stage_modules():
        for name, thing in list(vars(module).items()):
            if isinstance(thing, Task) and thing.name == stage and id(thing) not in found:
                thing.fn = with_fault(fault, thing.fn)
                found.add(id(thing))
            elif name == stage and inspect.isfunction(thing):
                setattr(module, name, with_fault(fault, thing))
                found.add(id(thing))
    assert len(found) == 1, f"{len(found)} stages named {stage!r}"


def run(faults: Sequence[str], command: Sequence[str]) -> None:
    os.environ.update(environment(Settings().resolved()))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    for fault in faults:
        inject(*fault.split("@"))
    from flows.cli.__main__ import main as tickline

    sys.argv = ["tickline", *command]
    tickline()


def wait_for_command() -> None:
    """Import what a nightly needs, then run the command that comes on standard input."""
    for name in ("flows.runs.rerun", "tasks.validation.day"):
        importlib.import_module(name)
    list(stage_modules())
    line = sys.stdin.readline()
    if not line:  # whoever started this process has ended
        return
    request = json.loads(line)
    with Path(request["log"]).open("ab") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    os.environ.update(request["variables"])
    run(request["faults"], request["command"])


if __name__ == "__main__":
    if sys.argv[1:]:
        end = sys.argv.index("--")
        run(sys.argv[1:end], sys.argv[end + 1 :])
    else:
        wait_for_command()
