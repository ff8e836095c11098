"""Folders in settings: `~` is the user's home, whoever reads the setting."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def expanded(path: Path) -> Path:
    """The path with `~` replaced.

    Raises:
        ValueError: the home folder of that user is not known.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}: write the folder in full") from error


def expanded_uri(uri: str) -> str:
    """A URI as it is, a path with `~` replaced.

    Raises:
        ValueError: as `expanded`.
    """
    return str(expanded(Path(uri))) if uri.startswith("~") else uri


Folder = Annotated[Path, AfterValidator(expanded)]
FolderUri = Annotated[str, AfterValidator(expanded_uri)]
