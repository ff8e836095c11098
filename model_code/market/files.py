"""Helpers shared by the file-backed stores."""

import hashlib
from collections.abc import Iterable

import fsspec

_CHUNK = 1 << 20


def digest_files(fs: fsspec.AbstractFileSystem, paths: Iterable[str]) -> str:
    """sha256 over each file's name and bytes, in the order given, in hex."""
    total = hashlib.sha256()
    for path in paths:
        part = hashlib.sha256()
        with fs.open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                part.update(chunk)
        total.update(f"{path.rsplit('/', 1)[-1]}\0{part.hexdigest()}\n".encode())
    return total.hexdigest()
