"""Objects by key below an address: a folder or a bucket that every host of an installation sees.

    file:///srv/tickline    a mounted folder
    s3://bucket/prefix      S3 or a compatible server: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
                            AWS_ENDPOINT_URL, AWS_ALLOW_HTTP=true, AWS_VIRTUAL_HOSTED_STYLE_REQUEST

An object appears whole or not at all. `create` is a conditional put (RFC 9110, If-None-Match): of
several writers of one key exactly one succeeds. Source: obstore's documentation, `put`.
"""

import datetime as dt
import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, from_url
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import atomic_file, atomic_folder
from model_code.errors import ConfigError, SharedStoreError, first_line

if TYPE_CHECKING:
    from obstore.store import RetryConfig

INDEX = ".index.json"  # of a folder; written last, so that a folder with one is complete
RETRY: "RetryConfig" = {
    "max_retries": 12,
    "retry_timeout": dt.timedelta(seconds=60),  # longer than a link is usually cut
    "backoff": {
        "init_backoff": dt.timedelta(milliseconds=200),
        "max_backoff": dt.timedelta(seconds=5),
        "base": 2,
    },
}

# Before each try of a conditional put. S3 answers 409 if it conflicts with another request for the
# key, and asks for a retry; obstore reports an object that exists. Source: S3's API, PutObject
TRIES_AFTER_S = (0.0, 0.05, 0.2, 1.0)


class Index(BaseModel):
    """The files of a folder, by relative name."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    files: tuple[str, ...]


class Entry(NamedTuple):
    """An object in a listing.

    Attributes:
        key: of the object.
        size: in bytes.
        modified: when it was written.
    """

    key: str
    size: int
    modified: dt.datetime


class Objects:
    """Objects below one address.

    Args:
        uri: `file:`, `s3:`, or another that obstore knows.
        wait_s: for an answer, with all retries; None: about a minute.

    Raises:
        ConfigError: no such kind of address.
    """

    def __init__(self, uri: str, wait_s: float | None = None) -> None:
        self.uri = uri.rstrip("/")
        self._store = _open(self.uri, wait_s)

    def read(self, key: str) -> bytes | None:
        """An object's bytes; None if there is none.

        Raises:
            SharedStoreError: the store did not answer.
        """
        with self._answering(key):
            try:
                return obstore.get(self._store, key).bytes().to_bytes()
            except FileNotFoundError:
                return None

    def create(self, key: str, data: bytes) -> bool:
        """Write an object that does not exist yet; False: another exists, nothing was written.

        Raises:
            SharedStoreError: the store did not answer, or each try conflicted with another request
                for the key.
        """
        with self._answering(key):
            for wait_s in TRIES_AFTER_S:
                time.sleep(wait_s)
                try:
                    obstore.put(self._store, key, data, mode="create", use_multipart=False)
                except AlreadyExistsError as error:
                    there = self.read(key)
                    if there is not None:
                        return there == data  # ours, if the answer to the first try was lost
                    conflict = error
                else:
                    return True
            raise conflict

    def write(self, key: str, data: bytes) -> None:
        """Write an object, whether it exists or not.

        Raises:
            SharedStoreError: the store did not answer.
        """
        with self._answering(key):
            obstore.put(self._store, key, data, use_multipart=False)

    def modified(self, key: str) -> float | None:
        """When an object was written, in seconds since the epoch; None if there is none.

        Raises:
            SharedStoreError: the store did not answer.
        """
        with self._answering(key):
            try:
                return obstore.head(self._store, key)["last_modified"].timestamp()
            except FileNotFoundError:
                return None

    def keys(self, prefix: str, after: str | None = None) -> list[str]:
        """Keys below a prefix, sorted.

        Args:
            prefix: a folder.
            after: only greater keys than this one.

        Raises:
            SharedStoreError: the store did not answer.
        """
        return [entry.key for entry in self.entries(prefix, after)]

    def entries(self, prefix: str, after: str | None = None) -> list[Entry]:
        """As `keys`, with sizes and times."""
        with self._answering(prefix):
            pages = obstore.list(self._store, prefix.rstrip("/") + "/", offset=after)
            return sorted(
                Entry(found["path"], found["size"], found["last_modified"])
                for page in pages
                for found in page
            )

    def delete(self, key: str) -> None:
        """Delete an object or a folder, if it exists.

        Raises:
            SharedStoreError: the store did not answer.
        """
        if self.modified(key) is not None:
            self._delete(key)
        # the index first: what is left of an interrupted deletion is not a folder any more
        for found in sorted(self.keys(key), key=lambda name: not name.endswith(f"/{INDEX}")):
            self._delete(found)

    def _delete(self, key: str) -> None:
        with self._answering(key), suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def has(self, key: str) -> bool:
        """Whether there is an object, or a complete folder, of this key.

        Raises:
            SharedStoreError: the store did not answer.
        """
        return self.modified(key) is not None or self.modified(f"{key}/{INDEX}") is not None

    def upload(self, path: Path, key: str) -> None:
        """Store a file, or a folder with its index last.

        Raises:
            SharedStoreError: the store did not answer.
        """
        with self._answering(key):
            if path.is_file():
                obstore.put(self._store, key, path)
                return
            files = sorted(
                child.relative_to(path).as_posix() for child in path.rglob("*") if child.is_file()
            )
            for name in files:
                obstore.put(self._store, f"{key}/{name}", path / name)
            self.write(f"{key}/{INDEX}", Index(files=tuple(files)).model_dump_json().encode())

    def download(self, key: str, path: Path) -> bool:
        """Copy an object or folder to `path`, by one rename; False if there is none.

        A file keeps the time at which its object was written.

        Raises:
            SharedStoreError: the store did not answer.
            StorageError: the disk is full; nothing is left behind.
        """
        index = None
        with self._answering(key):
            written = self.modified(key)
            if written is None:
                index = self.read(f"{key}/{INDEX}")
        if written is not None:
            with atomic_file(path) as temporary:
                self._fetch(key, temporary)
                os.utime(temporary, (written, written))
            return True
        if index is None:
            return False
        with atomic_folder(path) as folder:
            for name in Index.model_validate_json(index).files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                self._fetch(f"{key}/{name}", folder / name)
        return True

    def _fetch(self, key: str, path: Path) -> None:
        with self._answering(key), path.open("wb") as file:
            for block in obstore.get(self._store, key).stream():
                file.write(block)

    @contextmanager
    def _answering(self, key: str) -> Iterator[None]:
        """Turn the library's errors into ours."""
        try:
            yield
        except (BaseError, FileNotFoundError, PermissionError) as error:
            raise SharedStoreError(
                f"the shared store refused or did not answer: {first_line(error)}",
                where=f"{self.uri}/{key}",
                remedy="check TICKLINE_STORE, the credentials (AWS_ACCESS_KEY_ID, ...) and the "
                "network, then run the same command again; finished stages are kept",
            ) from error


@functools.cache
def _open(uri: str, wait_s: float | None) -> ObjectStore:
    """The store of an address; one for each process, because it keeps its connections."""
    try:
        if uri.startswith("file:"):
            return from_url(uri, mkdir=True)
        if wait_s is None:
            return from_url(uri, retry_config=RETRY)
        wait = dt.timedelta(seconds=wait_s)
        return from_url(
            uri,
            retry_config=RETRY | {"retry_timeout": wait / 2},
            client_options={"timeout": wait / 2},
        )
    except (BaseError, ValueError) as error:
        raise ConfigError(
            f"the shared store's address is not one: {first_line(error)}",
            where=f"TICKLINE_STORE={uri}",
            remedy="write file:///FOLDER or s3://BUCKET/PREFIX",
        ) from error
