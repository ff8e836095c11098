"""Where engines keep what makes the next build or load faster: compiled kernels, timings.

Nothing there is an artefact: losing it costs time alone.
"""

from pathlib import Path

from model_code.artifacts import storage_error
from model_code.settings import Settings


def cache_folder(name: str) -> Path:
    """The folder, made if need be.

    Raises:
        StorageError: it cannot be made.
    """
    folder = Settings().resolved().home / "engine-cache" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    return folder
