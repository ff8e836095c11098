"""Which process is it: its number alone is given to another one sooner or later."""

import os
import socket
from functools import cache
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict


class ProcessId(BaseModel):
    """A process, told from every other on any machine at any time.

    Attributes:
        boot: of the machine's present run, so that a restart ends all its processes.
        birth: when it began, counted from that boot; no change of the clock moves it.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    host: str
    boot: str
    pid: int
    birth: str

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """The mark of a process of this machine.

        Raises:
            psutil.NoSuchProcess: there is none.
        """
        born = birth(pid)
        if born is None:
            raise psutil.NoSuchProcess(pid)
        return cls(host=socket.gethostname(), boot=boot(), pid=pid, birth=born)

    @classmethod
    def own(cls) -> "ProcessId":
        """The mark of this process."""
        return cls.of(os.getpid())

    @property
    def here(self) -> bool:
        """Whether it is of this machine, so that `lives` can tell."""
        return self.host == socket.gethostname()

    @property
    def lives(self) -> bool:
        """Whether it is at work still; only for a process of this machine."""
        return self.boot == boot() and birth(self.pid) == self.birth


def birth(pid: int) -> str | None:
    """When a process began; None if it does not exist or is dead and not yet buried."""
    try:
        # after the command's name, which may hold anything, in brackets
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
    """Names the machine's present run."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(psutil.boot_time())
