"""Identity and processor time of processes. A pid alone does not identify one: pids are reused."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict


class ProcessId(BaseModel):
    """Identity of a process, unique across machines and over time.

    Attributes:
        boot: id of the machine's boot; after a restart no earlier process matches.
        birth: start time since boot; changes of the clock do not affect it.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    host: str
    boot: str
    pid: int
    birth: str

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """The identity of a process of this machine.

        Raises:
            psutil.NoSuchProcess: it does not exist.
        """
        born = birth(pid)
        if born is None:
            raise psutil.NoSuchProcess(pid)
        return cls(host=socket.gethostname(), boot=boot(), pid=pid, birth=born)

    @classmethod
    def own(cls) -> "ProcessId":
        """The identity of this process."""
        return cls.of(os.getpid())

    @property
    def here(self) -> bool:
        """Whether it is on this machine; only then is `lives` valid."""
        return self.host == socket.gethostname()

    @property
    def lives(self) -> bool:
        """Whether it is still running; only for a process of this machine."""
        return self.boot == boot() and birth(self.pid) == self.birth


def birth(pid: int) -> str | None:
    """Start time of a process; None if it does not exist or is a zombie."""
    try:
        # the fields after the command's name, which is in brackets and may contain anything
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError):
        return None
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


@cache
def boot() -> str:
    """Id of the machine's current boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(psutil.boot_time())


def cpu_seconds(processes: Mapping[str, int]) -> dict[str, float]:
    """Processor time of each process and its descendants until now; of this process, alone."""
    found: dict[str, float] = {}
    for name, pid in processes.items():
        found[name] = 0.0
        with suppress(psutil.NoSuchProcess):  # ended since
            one = psutil.Process(pid)
            others = [] if pid == os.getpid() else one.children(recursive=True)
            for times in [process.cpu_times() for process in (one, *others)]:
                found[name] += times.user + times.system
    return found
