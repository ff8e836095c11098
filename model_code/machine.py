"""Facts about the machine that computed something."""

import functools
import os
import platform
from pathlib import Path

import psutil

# what decides which arithmetic an engine can really use
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


@functools.cache
def processor() -> str:
    """The processor's name with its arithmetic extensions, and the GPU's if there is one."""
    cpu = _cpuinfo()
    name = cpu.get("model name", platform.processor() or platform.machine())
    flags = [flag for flag in FLAGS if flag in cpu.get("flags", "").split()]
    return " ".join([name, *flags, *gpus()])


@functools.cache
def gpus() -> tuple[str, ...]:
    """Names of the CUDA devices torch can use."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def facts() -> dict[str, str]:
    """Machine facts stored with every measurement: processor, cores, memory, load, system."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": processor(),
        "cores": str(psutil.cpu_count(logical=False) or psutil.cpu_count()),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.0f}",
        "load_1min": f"{load:.2f}",
        "system": platform.platform(),
        "python": platform.python_version(),
    }


@functools.cache
def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
