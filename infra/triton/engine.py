"""Serve a single engine for a benchmark or a test: a temporary repository and server."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.triton.server import TritonServer, running
from model_code.engines.sidecar import SIDECAR_FILE, EngineSidecar
from model_code.repository.manifest import CONFIG_FILE
from model_code.repository.triton_config import model_config
from model_code.settings import MODEL_NAME, ServingSpec, Settings


@contextmanager
def serving_engine(
    settings: Settings,
    engine_folder: Path,
    sidecar: EngineSidecar,
    serving: ServingSpec | None = None,
) -> Iterator[TritonServer]:
    """Serve a folder written by `Engine.build` as version 1 of the model, as in production.

    Args:
        settings: location of the installation and of the logs.
        engine_folder: with engine and sidecar.
        sidecar: of the engine.
        serving: instances, batching and threads; None: the design's.

    Raises:
        EngineError: Triton has no backend for the engine.
        ServerError: the server cannot be installed or does not start.
        ServingError: the engine does not load.
    """
    home = settings.home / "triton"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix="engine-") as folder:
        repository = Path(folder)
        add_version(repository, 1, engine_folder, sidecar, serving)
        with running(settings, repository, models=(MODEL_NAME,)) as server:
            yield server


def add_version(
    repository: Path,
    version: int,
    engine_folder: Path,
    sidecar: EngineSidecar,
    serving: ServingSpec | None = None,
) -> Path:
    """Add an engine to a temporary repository, without a manifest; return its folder.

    The version appears by one rename, so that a running server can load it.
    """
    home = repository / MODEL_NAME
    home.mkdir(parents=True, exist_ok=True)
    (home / CONFIG_FILE).write_text(model_config(sidecar, serving))
    target = home / str(version)
    with tempfile.TemporaryDirectory(dir=repository, prefix=".add-") as scratch:
        for name in (sidecar.file, SIDECAR_FILE):
            shutil.copyfile(engine_folder / name, Path(scratch) / name)
        Path(scratch).chmod(0o755)
        return Path(shutil.copytree(scratch, f"{scratch}-done")).rename(target)
