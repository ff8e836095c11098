"""Eager PyTorch: the FP32 reference and automatic mixed precision.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_code import machine
from model_code.engines.packaged import PackagedEngine
from model_code.engines.pinned import Buffers
from model_code.engines.protocol import EngineSource, Predictor, check_windows
from model_code.models import network
from model_code.settings import MAX_BATCH_SIZE


class _TorchPredictor:
    def __init__(self, path: Path, device: str, dtype: torch.dtype | None) -> None:
        self._model = network.load(path).to(device).eval()
        self._device, self._dtype = device, dtype or torch.float32
        self._buffers = Buffers(device) if device == "cuda" else None

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(x_BTF)
        mixed = self._dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self._device, self._dtype, enabled=mixed):
            window_BTF = torch.from_numpy(x_BTF)
            if self._buffers is not None and len(x_BTF) <= MAX_BATCH_SIZE:
                return self._buffers.receive(self._model(self._buffers.send(window_BTF)))
            logits_BC = self._model(window_BTF.to(self._device))
        answer: NDArray[np.float32] = logits_BC.float().cpu().numpy()
        return answer


class _TorchEngine(PackagedEngine):
    library, file = "torch", "model.pt"
    dtype: torch.dtype | None = None

    def __init__(self) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def _export(self, source: EngineSource) -> Path:
        return source.model

    def _open(self, path: Path, threads: int) -> Predictor:
        torch.set_num_threads(threads)
        # Convolutions default to TF32 on CUDA; the reference must be true FP32. This is the older
        # switch, because torch's exporter reads it and rejects per-operator settings.
        torch.backends.cudnn.allow_tf32 = False
        return _TorchPredictor(path, self.device, self.dtype)

    def _device_name(self) -> str:
        return machine.gpus()[0] if self.device == "cuda" else super()._device_name()


class TorchFloat32(_TorchEngine):
    """Eager FP32: the reference for every other engine."""

    name, precision = "torch-fp32", "fp32"

    def availability(self) -> str | None:
        """Always available."""
        return None


class TorchMixed(_TorchEngine):
    """Autocast: FP16 on CUDA, BF16 on a CPU with native BF16."""

    name = "torch-amp"

    def __init__(self) -> None:
        super().__init__()
        cuda = self.device == "cuda"
        self.precision = "fp16" if cuda else "bf16"
        self.dtype = torch.float16 if cuda else torch.bfloat16

    def availability(self) -> str | None:
        """Not available with emulated BF16, which is an order of magnitude slower than FP32."""
        if self.device == "cuda":
            return None
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
            return None
        return "CPU has no native BF16 (AVX512_BF16 or AMX)"
