"""The `tickline` command as a user runs it: here, or in a process that is interrupted later."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import psutil
from typer.testing import CliRunner

from flows.cli.__main__ import app
from infra.exit_with_parent import kill_tree

# pytest may have been started with SIGINT ignored, which every child would inherit
RUN = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('flows.cli', run_name='__main__', alter_sys=True)"
)


def plain(text: str) -> str:
    """Printed text without colours, frames and line breaks."""
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─┃┏┓┗┛━]", " ", text))


def tickline(*arguments: object, status: int = 0) -> str:
    """Run the command in this process, which must exit with `status`; return what it printed.

    What it sets in the environment is undone, so no later test sees it.
    """
    words = [str(argument) for argument in arguments]
    with mock.patch.dict(os.environ):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == status, done.output
    return plain(done.output)


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports on which a process and its descendants take connections."""
    found = set()
    for member in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            for socket in member.net_connections():
                if socket.status == psutil.CONN_LISTEN:
                    address = socket.laddr.ip.removeprefix("::ffff:")  # IPv4 in IPv6's notation
                    found.add((address, socket.laddr.port))
    return found


class Running:
    """A `tickline` process and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def until(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        """Wait for the condition; fail if the process ends before."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")
            time.sleep(0.05)

    def interrupt(self, seconds: float = 60.0) -> int:
        """Press Ctrl-C; return the exit status of a process that left no child behind."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(seconds)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
        return status


@contextmanager
def running(log: Path, *arguments: object) -> Iterator[Running]:
    """A `tickline` process for the length of the block; its output goes to the file `log`."""
    command = [sys.executable, "-c", RUN, *(str(argument) for argument in arguments)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[2],
            env=os.environ | {"COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Running(process, log)
    finally:
        if process.poll() is None:
            kill_tree(psutil.Process(process.pid))
        process.wait()
