"""Memory that an engine on a GPU allocates once: pinned on the host, and on the device.

A copy between pinned memory and the GPU needs no intermediate buffer, and nothing is allocated for
a request.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_code.settings import CLASS_COUNT, FEATURE_COUNT, MAX_BATCH_SIZE, SEQUENCE_LENGTH


class Buffers:
    """Input and output of up to 64 windows; the next request overwrites them.

    Args:
        device: "cuda", or "cpu", where nothing is pinned.
        dtype: of the input on the device.
    """

    def __init__(self, device: str, dtype: torch.dtype = torch.float32) -> None:
        pinned = device == "cuda"
        windows = (MAX_BATCH_SIZE, SEQUENCE_LENGTH, FEATURE_COUNT)
        self._sent = torch.empty(windows, dtype=dtype, pin_memory=pinned)
        self._received = torch.empty((MAX_BATCH_SIZE, CLASS_COUNT), pin_memory=pinned)
        self.windows = torch.empty(windows, dtype=dtype, device=device)

    def send(self, x_BTF: Tensor) -> Tensor:
        """The windows on the device, in its type; the copy is queued on the current stream."""
        host_BTF = self._sent[: len(x_BTF)]
        host_BTF.copy_(x_BTF)
        return self.windows[: len(x_BTF)].copy_(host_BTF, non_blocking=True)

    def receive(self, logits_BC: Tensor) -> NDArray[np.float32]:
        """Logits as a new array on the host, after everything queued on the current stream."""
        host_BC = self._received[: len(logits_BC)]
        host_BC.copy_(logits_BC.float(), non_blocking=True)
        if logits_BC.is_cuda:
            torch.cuda.current_stream().synchronize()
        answer: NDArray[np.float32] = host_BC.numpy().copy()
        return answer
