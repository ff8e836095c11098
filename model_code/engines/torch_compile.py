"""`torch.compile`: inductor's C++ on the CPU, Triton kernels in CUDA graphs on a GPU.

On a GPU, whose CUDA graphs have fixed shapes, the network is compiled for batches 1, 8, 16, 32 and
64; on the CPU for batch 1, and once for all others. A batch of another size is padded to the next
larger one, so that no request waits for a compilation.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_code.engines.cache import cache_folder
from model_code.engines.pinned import Buffers
from model_code.engines.protocol import Predictor, check_windows
from model_code.engines.torch_engines import TorchFloat32
from model_code.errors import EngineError
from model_code.models import network
from model_code.models.predictor import WindowModel
from model_code.settings import (
    FEATURE_COUNT,
    MAX_BATCH_SIZE,
    PREFERRED_BATCH_SIZES,
    SEQUENCE_LENGTH,
)

BATCHES = (1, *PREFERRED_BATCH_SIZES, MAX_BATCH_SIZE)
COMPILERS = ("g++", "clang++")


class TorchCompiled(TorchFloat32):
    """FP32 compiled for this machine when loaded; kernels are kept in the engine cache."""

    name, precision = "torch-compile", "fp32"
    half = False

    def availability(self) -> str | None:
        """Needs Triton on a GPU, a C++ compiler on a CPU."""
        if self.device == "cuda":
            return None if util.find_spec("triton") else "Triton is not installed"
        compiler = os.environ.get("CXX")
        if compiler and shutil.which(compiler):
            return None
        if any(shutil.which(name) for name in COMPILERS):
            return None
        return f"no C++ compiler ({', '.join(COMPILERS)} or $CXX)"

    def _open(self, path: Path, threads: int) -> Predictor:
        super()._open(path, threads)  # for torch's global settings
        # inductor reads it when it compiles; its default in /tmp may belong to another user
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder("torch-compile"))
        try:
            model = network.load(path).to(self.device).eval()
            return _CompiledPredictor(model, self.device, half=self.half)
        except EngineError:
            raise
        except Exception as error:  # dynamo, inductor and the compiler share no base class
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(
                f"torch.compile failed: {reason[0]}",
                where=os.environ["TORCHINDUCTOR_CACHE_DIR"],
                remedy="use torch-fp32; to see the compiler's messages: TORCH_LOGS=inductor",
            ) from error


class TorchCompiledHalf(TorchCompiled):
    """Autocast to FP16, compiled into CUDA graphs; only on a GPU."""

    name, precision, half = "torch-compile-fp16", "fp16", True

    def availability(self) -> str | None:
        """Needs a GPU, and Triton."""
        if self.device != "cuda":
            return "no GPU that torch can use"
        return super().availability()


class _CompiledPredictor:
    def __init__(self, model: WindowModel, device: str, *, half: bool = False) -> None:
        self._device, self._half = device, half
        self._buffers = Buffers(device) if device == "cuda" else None
        torch.compiler.reset()  # graphs of an earlier network count against the recompile limit
        forward: dict[int, Callable[[Tensor], Tensor]] = {}
        with _decomposed(), torch.inference_mode():
            if device == "cuda":
                fixed = torch.compile(model, mode="reduce-overhead", dynamic=False)
                forward = dict.fromkeys(BATCHES, fixed)
            else:
                options: dict[str, str | int | bool | Callable[..., object]] = {"freezing": True}
                single = torch.compile(model, dynamic=False, options=options)
                several = torch.compile(_Several(model), dynamic=True, options=options)
                forward = {batch: single if batch == 1 else several for batch in BATCHES}
            self._forward = forward
            for batch in BATCHES * (3 if device == "cuda" else 1):  # CUDA graphs: record and replay
                self._run(torch.zeros(batch, SEQUENCE_LENGTH, FEATURE_COUNT))

    def _run(self, x_BTF: Tensor) -> Tensor:
        forward = self._forward[len(x_BTF)]
        with torch.autocast(self._device, torch.float16, enabled=self._half):
            if self._buffers is None:
                return forward(x_BTF.to(self._device)).float().cpu()
            return torch.from_numpy(self._buffers.receive(forward(self._buffers.send(x_BTF))))

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(x_BTF)
        with _decomposed(), torch.inference_mode():
            parts = [
                self._padded(part) for part in torch.split(torch.from_numpy(x_BTF), MAX_BATCH_SIZE)
            ]
            answer: NDArray[np.float32] = torch.cat(parts).numpy()
        return answer

    def _padded(self, x_BTF: Tensor) -> Tensor:
        count = len(x_BTF)
        batch = next(size for size in BATCHES if size >= count)
        if batch > count:
            x_BTF = torch.cat([x_BTF, x_BTF.new_zeros(batch - count, *x_BTF.shape[1:])])
        return self._run(x_BTF)[:count]


class _Several(torch.nn.Module):
    """The same network in another module, because torch caches compiled graphs by their code."""

    def __init__(self, model: WindowModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_BTF: Tensor) -> Tensor:
        logits_BC: Tensor = self.model(x_BTF)
        return logits_BC


@contextmanager
def _decomposed() -> Iterator[None]:
    """Disable the encoder's fused eager kernel, which inductor cannot compile."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own deprecated switches
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
