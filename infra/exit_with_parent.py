"""Run a command that must not outlive its parent: `python -m infra.exit_with_parent COMMAND...`.

The parent holds the other end of standard input. If the parent dies, even by SIGKILL, the pipe
closes and the command is stopped. All its descendants are stopped too, even those in a process
group of their own: on Linux such orphans are re-parented to this process.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

import psutil

GRACE_S = 15
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


def main(command: list[str]) -> int:
    """Run the command until it ends, the parent dies or SIGTERM arrives; return its status."""
    adopt_orphans()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def stop(*_: object) -> None:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
            threading.Timer(GRACE_S, child.kill).start()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us
    threading.Thread(target=watch, daemon=True).start()
    status = child.wait()
    with contextlib.suppress(ProcessLookupError):  # the workers of a server must end too
        os.killpg(child.pid, signal.SIGKILL)
    for orphan in psutil.Process().children():
        kill_tree(orphan)
    return status


if __name__ == "__main__":
    # a pending timer must not delay the exit
    os._exit(main(sys.argv[1:]) & 0xFF)
