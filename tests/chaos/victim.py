"""A tickline command that a fault strikes: `python -m tests.chaos.victim FAULT STAGE COMMAND...`.

kill     SIGKILL when the stage's work is done and nobody has been told yet
epoch    SIGKILL when one epoch's checkpoint is on disk (STAGE: train)
memory   the stage may take 16 MB more address space than the process has
fill     the file system of the home folder is filled up before the stage
clock    the wall clock goes an hour back before the stage
signal   a file `<home>/reached` appears and the stage waits until it is gone
"""

import datetime as dt
import functools
import importlib
import inspect
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import time_machine

from infra.servers import environment
from model_code.settings import Settings

SETTINGS = Settings().resolved()


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch_checkpoints() -> None:
    def watch() -> None:
        while not list(SETTINGS.checkpoints.rglob("*.pt")):
            time.sleep(0.01)
        die()

    threading.Thread(target=watch, daemon=True).start()


def starve() -> None:
    limit = psutil.Process().memory_info().vms + (16 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def fill() -> None:
    ballast = SETTINGS.home / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 20)):
                pass
        except OSError:
            return


def turn_back() -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    time_machine.travel(past, tick=True).start()  # in C, for everybody in this process


def wait() -> None:
    reached = SETTINGS.home / "reached"
    reached.touch()
    while reached.exists():
        time.sleep(0.05)


BEFORE: dict[str, Callable[[], None]] = {
    "epoch": watch_checkpoints,
    "memory": starve,
    "fill": fill,
    "clock": turn_back,
    "signal": wait,
}


def strike(fault: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def struck(*arguments: Any, **named: Any) -> Any:
        if fault != "kill":
            BEFORE[fault]()
        result = function(*arguments, **named)
        if fault == "kill":
            die()
        return result

    return struck


def main(fault: str, stage: str, command: list[str]) -> None:
    os.environ.update(environment(SETTINGS))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    from prefect import Task

    from flows.cli.__main__ import main as tickline
    from tasks import nightly

    found = False
    for file in pkgutil.iter_modules(nightly.__path__):
        module = importlib.import_module(f"{nightly.__name__}.{file.name}")
        for name, thing in list(vars(module).items()):
            if isinstance(thing, Task) and thing.name == stage:
                thing.fn, found = strike(fault, thing.fn), True
            elif name == stage and inspect.isfunction(thing):  # a plain function of the flow
                setattr(module, name, strike(fault, thing))
                found = True
    assert found, f"no stage {stage!r}"
    sys.argv = ["tickline", *command]
    tickline()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
