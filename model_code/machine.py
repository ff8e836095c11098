"""Facts about this machine, stored with results."""

import functools
import os
import platform
from pathlib import Path

import psutil

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_DRIVER = Path("/sys/module/nvidia/version")

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


def facts() -> dict[str, str]:
    """Machine facts stored with every measurement: processor, clock policy, GPU, load, system."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": processor(),
        "cores": str(psutil.cpu_count(logical=False) or psutil.cpu_count()),
        "governor": _first_line(_GOVERNOR),
        "gpu": ", ".join(gpus()) or "none",
        "driver": _first_line(_DRIVER),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.0f}",
        "load_1min": f"{load:.2f}",
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _first_line(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else "none"


@functools.cache
def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
