"""URIs that name their reader: `databento:PATH`, `tardis:PATH`, `lobster:PATH`, `parquet:PATH`.

PATH is a path or any fsspec URI. `parquet:PATH?mapping=FILE` names the mapping of columns too.
Without a name, the content at the URI decides the reader.
"""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from model_code.errors import ConfigError

KINDS = ("databento", "tardis", "lobster", "parquet")


class Named(NamedTuple):
    """A URI's parts.

    Attributes:
        kind: the reader's name.
        place: path or fsspec URI.
        mapping: path or fsspec URI; None: not named.
    """

    kind: str
    place: str
    mapping: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" + (f"?mapping={self.mapping}" if self.mapping else "")


def split(uri: str) -> Named | None:
    """The parts of a URI that names its reader; None if it names none.

    Raises:
        ConfigError: a parameter other than `mapping`, or no path.
    """
    kind, _, rest = uri.partition(":")
    if kind not in KINDS or rest.startswith("//"):
        return None
    place, _, query = rest.partition("?") if kind == "parquet" else (rest, "", "")
    name, _, mapping = query.partition("=")
    if not place or (query and (name != "mapping" or not mapping)):
        raise ConfigError(
            f"the URI has {'no path' if not place else f'the unknown parameter {name!r}'}",
            where=uri,
            remedy="write parquet:PATH?mapping=FILE" if kind == "parquet" else f"write {kind}:PATH",
        )
    return Named(kind, place, unquote(mapping) or None)


def absolute(uri: str) -> str:
    """The URI with absolute paths, so that it means the same in another folder.

    Raises:
        ConfigError: see `split`.
    """
    named = split(uri)
    if named is None:
        return uri
    mapping = named.mapping and local(named.mapping)
    return str(named._replace(place=local(named.place), mapping=mapping))


def local(place: str) -> str:
    """A path made absolute, `~` replaced; another URI as it is."""
    return place if "://" in place else str(Path(place).expanduser().absolute())
