"""Facts about this machine, stored with results, and the cores that this process may use."""

import functools
import math
import os
import platform
from pathlib import Path

import psutil

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_DRIVER = Path("/sys/module/nvidia/version")
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

# the flags that decide which arithmetic an engine can use natively
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


@functools.cache
def processor() -> str:
    """The processor's name with its arithmetic extensions, and the GPUs' names if there are any."""
    cpu = _cpuinfo()
    name = cpu.get("model name", platform.processor() or platform.machine())
    flags = [flag for flag in FLAGS if flag in cpu.get("flags", "").split()]
    return " ".join([name, *flags, *gpus()])


def flags() -> set[str]:
    """The processor's feature flags, as Linux names them; empty elsewhere."""
    info = _cpuinfo()
    return set(info.get("flags", info.get("Features", "")).split())


@functools.cache
def gpus() -> tuple[str, ...]:
    """Names of the CUDA devices that torch can use."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def physical_cores() -> int:
    """Physical cores this process may use: the number of threads with the lowest latency.

    The machine's, fewer if the process is bound to some of them, and no more than whole CPUs of its
    quota: threads beyond a quota take turns, and all wait for the one that was stopped.
    """
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    quota = cpu_quota()
    return max(1, min(physical, allowed, physical if quota is None else math.floor(quota)))


def cpu_quota(root: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> float | None:
    """CPUs that this process's control groups grant it, as a container's limit; None: all.

    The limits of parent groups hold as well. Source: the Linux kernel's documentation, cgroup-v2
    (`cpu.max`) and, for version 1, sched-bwc (`cpu.cfs_quota_us`).

    Args:
        root: where control groups are mounted.
        own: the process's groups, as lines "number:controllers:path".
    """
    found = []
    for line in own.read_text().splitlines() if own.is_file() else ():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            mounts = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / controllers, root / "cpu"]
        else:
            continue
        for mount in mounts:
            # in a container the path may be the host's, and the container's own limit is at the top
            folder = mount / path.lstrip("/")
            parents = [folder, *folder.parents]
            found += [_limit(each) for each in parents[: parents.index(mount) + 1]]
    return min((limit for limit in found if limit is not None), default=None)


def facts() -> dict[str, str]:
    """Machine facts stored with every measurement: processor, clock policy, GPU, load, system."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": processor(),
        "cores": str(physical_cores()),
        "governor": _first_line(_GOVERNOR),
        "gpu": ", ".join(gpus()) or "none",
        "driver": _first_line(_DRIVER),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.0f}",
        "load_1min": f"{load:.2f}",
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _limit(folder: Path) -> float | None:
    """CPUs that one control group grants; None without a limit."""
    quota, _, period = _first_line(folder / "cpu.max").partition(" ")
    if not period:
        quota, period = (
            _first_line(folder / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
    if not (quota.isdecimal() and period.isdecimal() and int(period)):  # "max", "-1", "none"
        return None
    return int(quota) / int(period)


def _first_line(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else "none"


@functools.cache
def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
