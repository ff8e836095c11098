"""Folders in settings: `~` is the user's home, whoever reads the setting."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

PASSWORD = re.compile(r"://[^/\s@:]*:[^/\s@]+@")


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


def without_password(uri: str) -> str:
    """The URI, if it has no password: it is logged with every run.

    Raises:
        ValueError: it has one.
    """
    if PASSWORD.search(uri):
        raise ValueError(
            "this address is logged with every run, so it may have no password: set the storage's "
            "own variables, e.g. AWS_SECRET_ACCESS_KEY"
        )
    return uri


def _store_uri(uri: str) -> str:
    """The address of a shared store; a plain path becomes a `file:` address."""
    uri = without_password(uri)
    return uri if "://" in uri else expanded(Path(uri)).resolve().as_uri()


Folder = Annotated[Path, AfterValidator(expanded)]
FolderUri = Annotated[str, AfterValidator(expanded_uri)]
StoreUri = Annotated[str, AfterValidator(_store_uri)]
MarketUri = Annotated[str, AfterValidator(expanded_uri), AfterValidator(without_password)]
