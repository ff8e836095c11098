"""Cache folders of the engines: compiled kernels and timings that speed up the next build or load.

The content is not an artefact: losing it costs only time.
"""

from pathlib import Path

from model_code.artifacts import storage_error
from model_code.settings import Settings


def cache_folder(name: str) -> Path:
    """Return the folder, creating it if needed.

    Raises:
        StorageError: it cannot be created.
    """
    folder = Settings().resolved().home / "engine-cache" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    return folder
