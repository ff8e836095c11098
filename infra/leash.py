"""Run a command that must not outlive its parent: `python -m infra.leash COMMAND...`.

The parent holds the other end of standard input. When the parent dies, however it dies, the pipe
closes and the command's whole process group is stopped.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_S = 15


def main(command: list[str]) -> int:
    """Run the command until it ends, the parent dies or SIGTERM comes; return its status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def stop(*_: object) -> None:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us
    threading.Thread(target=watch, daemon=True).start()
    status = child.wait()
    with contextlib.suppress(ProcessLookupError):  # a server's own workers must not linger either
        os.killpg(child.pid, signal.SIGKILL)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
