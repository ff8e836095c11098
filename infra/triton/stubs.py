"""The model processes ("stubs") of a server on this machine: which versions have none that runs.

Triton notices a dead process after up to 5 s, and aborts when a stopped one continues. The
process table shows both at once.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from model_code.settings import MODEL_NAME

DEAD = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


class Stubs:
    """Looks at the model processes of one server, again and again."""

    def __init__(self) -> None:
        self._stopped: set[int] = set()

    def lacking(self, pid: int, versions: Iterable[int]) -> set[int]:
        """Versions without a process that runs; kills one that is stopped in two looks.

        Args:
            pid: of the server.
            versions: of the served model.
        """
        running: set[int] = set()
        stopped: set[int] = set()
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(pid).children():
                with suppress(psutil.NoSuchProcess):
                    status, version = child.status(), _version(child)
                    if version is None or status in DEAD:
                        continue
                    if status == psutil.STATUS_STOPPED and child.pid in self._stopped:
                        child.kill()
                        continue
                    running.add(version)
                    if status == psutil.STATUS_STOPPED:
                        stopped.add(child.pid)
        self._stopped = stopped
        return set(versions) - running


def _version(process: psutil.Process) -> int | None:
    """The version that a process computes; None: it computes none of the served model's."""
    for word in process.cmdline():
        parts = Path(word).parts
        if len(parts) > 2 and parts[-3] == MODEL_NAME and parts[-2].isdecimal():
            return int(parts[-2])
    return None
