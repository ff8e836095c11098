"""Memory of one engine: the increase from loading it and predicting its largest batch."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_mib(work: Callable[[], T]) -> tuple[T, float | None]:
    """Run `work` and measure how far resident memory rises above its value before.

    Returns:
        The work's result and MiB of host memory; None if the system does not report it (proc(5),
        Linux only). Libraries imported before are not counted.
    """
    try:
        _CLEAR.write_text("5")  # resets the peak to the current value
        before = _resident("VmRSS")
    except OSError:
        return work(), None
    result = work()
    return result, max(0.0, _resident("VmHWM") - before)


def gpu_mib(work: Callable[[], T], free: Callable[[], int] | None = None) -> tuple[T, float | None]:
    """Run `work` and measure how much less memory of the GPU is free after it.

    The whole device's, because TensorRT and ONNX Runtime do not allocate through torch: another
    process that allocates meanwhile is counted too. Libraries keep what they allocated, so that the
    end is the peak.

    Args:
        work: loads an engine and predicts.
        free: bytes of the GPU that are free; None: those of the current one.

    Returns:
        The work's result and MiB; None without a GPU.
    """
    if free is None:
        if not torch.cuda.is_available():
            return work(), None
        free = _free
    before = free()
    result = work()
    return result, max(0.0, (before - free()) / 2**20)


def _free() -> int:
    torch.cuda.synchronize()
    return int(torch.cuda.mem_get_info()[0])


def _resident(name: str) -> float:
    lines = (line.partition(":") for line in _STATUS.read_text().splitlines())
    return next(float(value.split()[0]) for key, _, value in lines if key == name) / 1024
