"""Engines whose file is an export, unmodified or rewritten, and compiled at load.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import platform
import shutil
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from model_code import machine
from model_code.artifacts import hash_path, storage_error
from model_code.engines.protocol import EngineSource, Predictor, parity_error
from model_code.engines.sidecar import EngineSidecar, TensorSpec
from model_code.errors import EngineError, EngineUnavailableError
from model_code.machine import physical_cores
from model_code.models import network
from model_code.settings import (
    CLASS_COUNT,
    FEATURE_COUNT,
    INPUT_NAME,
    MAX_BATCH_SIZE,
    OUTPUT_NAME,
    SEQUENCE_LENGTH,
)


def system() -> str:
    """Operating system and architecture, as "Linux x86_64"."""
    return f"{platform.system()} {platform.machine()}"


def require(name: str, reason: str | None) -> None:
    """Raise if an engine cannot run on this machine.

    Raises:
        EngineUnavailableError: `reason` is not None.
    """
    if reason is not None:
        raise EngineUnavailableError(
            f"engine {name} is unavailable: {reason}",
            remedy="list the available engines: tickline engines",
        )


def require_same(name: str, found: str, folder: Path) -> None:
    """Raise if a folder contains another engine.

    Raises:
        EngineError: the sidecar names another engine.
    """
    if found != name:
        raise EngineError(f"the folder contains engine {found}, not {name}", where=str(folder))


@dataclass(frozen=True)
class EngineFile:
    """Facts about an engine's file.

    Attributes:
        flops: of one window.
        recipe: facts for the sidecar.
    """

    flops: int
    recipe: dict[str, str | int | float] = field(default_factory=dict)


class PackagedEngine(ABC):
    """Base of the engines that write a file and open it with a library."""

    name: str
    precision: str
    device: str
    library: str
    file: str

    @abstractmethod
    def availability(self) -> str | None:
        """None if the engine can build and run on this machine, otherwise the reason."""

    @abstractmethod
    def _export(self, source: EngineSource) -> Path:
        """The export that this engine opens."""

    def _make(self, source: EngineSource, path: Path) -> EngineFile:
        """Write the engine's file: the unmodified export, unless a subclass changes it."""
        try:
            shutil.copyfile(self._export(source), path)
        except OSError as error:
            raise storage_error(error, path) from error
        return EngineFile(network.flops_per_window(network.load(source.model).spec))

    @abstractmethod
    def _open(self, path: Path, threads: int) -> Predictor:
        """Compile the file for this machine."""

    def _library_version(self) -> str:
        return metadata.version(self.library)

    def _device_name(self) -> str:
        return machine.processor()

    def build(self, source: EngineSource, out: Path) -> EngineSidecar:
        """Write the file, compile it once, measure its parity, write the sidecar.

        Raises:
            EngineUnavailableError: this machine lacks what the engine needs.
            EngineError: the library refuses the graph, or falls back to another precision.
            StorageError: the folder cannot be written.
        """
        require(self.name, self.availability())
        path, threads = out / self.file, physical_cores()
        started = time.perf_counter()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, path) from error
        made = self._make(source, path)
        predictor = self._open(path, threads)
        seconds = time.perf_counter() - started
        sidecar = EngineSidecar(
            engine=self.name,
            library=self.library,
            library_version=self._library_version(),
            precision=self.precision,
            device=self._device_name(),
            file=self.file,
            sha256=hash_path(path),
            onnx_sha256=hash_path(source.onnx),
            inputs=(
                TensorSpec(name=INPUT_NAME, dtype="FP32", shape=(SEQUENCE_LENGTH, FEATURE_COUNT)),
            ),
            outputs=(TensorSpec(name=OUTPUT_NAME, dtype="FP32", shape=(CLASS_COUNT,)),),
            max_batch=MAX_BATCH_SIZE,
            threads=threads,
            system=system(),
            flops=made.flops,
            recipe=made.recipe,
            build_seconds=seconds,
            parity_error=parity_error(predictor, source),
        )
        sidecar.save(out)
        return sidecar

    def load(self, folder: Path) -> Predictor:
        """Open what `build` wrote, after checking its bytes.

        Raises:
            IntegrityError: bytes differ from the sidecar.
            EngineUnavailableError: this machine lacks what the engine needs.
            EngineError: another engine's folder, or the library refuses the file.
        """
        sidecar = EngineSidecar.load(folder)
        require_same(self.name, sidecar.engine, folder)
        require(self.name, self.availability())
        return self._open(folder / sidecar.file, physical_cores())
