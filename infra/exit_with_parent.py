"""Run a command that must not outlive its parent: `python -m infra.exit_with_parent COMMAND...`.

Options before the command: `--grace=SECONDS` between SIGTERM and SIGKILL; `--redact` copies its
output without secrets.

The parent holds the other end of standard input. If the parent dies, even by SIGKILL, the pipe
closes and the command is stopped. All its descendants are stopped too, even those in a process
group of their own: on Linux such orphans are re-parented to this process.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO

import psutil

from infra.redact import redact

GRACE_S = 15.0
DRAIN_S = 5.0  # for the last output of a command that has ended
LONGEST_LINE = 1 << 16
PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def adopt_orphans() -> None:
    """Become the new parent of orphaned descendants (Linux only; elsewhere it does nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_tree(process: psutil.Process) -> None:
    """Kill a process and all its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for found in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.kill()


def launcher(grace_s: float = GRACE_S) -> list[str]:
    """Command line, before the service's own: its output goes to a log, without secrets."""
    return [sys.executable, "-m", "infra.exit_with_parent", f"--grace={grace_s:g}", "--redact"]


def main(arguments: Sequence[str]) -> int:
    """Run the command until it ends, the parent dies or SIGTERM arrives; return its status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--grace", type=float, default=GRACE_S)
    parser.add_argument("--redact", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    adopt_orphans()
    child = subprocess.Popen(
        options.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if options.redact else None,
        stderr=subprocess.STDOUT if options.redact else None,
        start_new_session=True,
    )

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def stop(*_: object) -> None:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
            threading.Timer(options.grace, kill).start()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us
    threading.Thread(target=watch, daemon=True).start()
    copying = None
    if child.stdout:
        copying = threading.Thread(target=copy, args=(child.stdout,), daemon=True)
        copying.start()
    status = child.wait()
    kill()  # the workers of a server must end too
    for orphan in psutil.Process().children():
        kill_tree(orphan)
    if copying:
        copying.join(DRAIN_S)
    return status


def copy(source: IO[bytes]) -> None:
    """Copy lines to standard output without secrets, until the source ends."""
    for line in iter(lambda: source.readline(LONGEST_LINE), b""):
        text = redact(line.decode(errors="surrogateescape"))
        with contextlib.suppress(OSError):  # a full disk must not block the command
            os.write(sys.stdout.fileno(), text.encode(errors="surrogateescape"))


if __name__ == "__main__":
    # a pending timer must not delay the exit
    os._exit(main(sys.argv[1:]) & 0xFF)
