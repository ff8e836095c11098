"""State of a partition's groups with the offset it belongs to: one file, written in one step."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import msgspec

from infra.live.kafka.clients import Partition
from model_code.artifacts import atomic_file, hash_bytes
from model_code.errors import IntegrityError, SharedStoreError
from model_code.storage.objects import Objects

HASH_BYTES = 32


class Saved(msgspec.Struct, frozen=True):
    """State after all messages before `offset`, whose outputs were confirmed.

    Attributes:
        topic, number: the partition.
        offset: of the next message.
        groups: `Group.snapshot` by the group's key.
    """

    topic: str
    number: int
    offset: int
    groups: dict[str, bytes]

    @property
    def partition(self) -> Partition:
        """Where it belongs."""
        return Partition(self.topic, self.number)


def file_of(folder: Path, partition: Partition) -> Path:
    """The file of a partition."""
    return folder / f"{partition.topic}-{partition.number}.state"


def write(folder: Path, saved: Saved) -> None:
    """Replace the partition's file.

    Raises:
        StorageError: it cannot be written.
    """
    with atomic_file(file_of(folder, saved.partition)) as path:
        path.write_bytes(_encoded(saved))


def read(folder: Path, partition: Partition) -> Saved | None:
    """The partition's file; None without one.

    Raises:
        IntegrityError: truncated, changed, or of another partition.
    """
    path = file_of(folder, partition)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return _decoded(content, partition, str(path))


class SharedSnapshots:
    """Copies in the shared store, for the host that takes a partition over.

    Copying never delays a snapshot: while the store is slow, only the newest state waits.

    Args:
        objects: the shared store; its answers are waited for when a partition is taken.
        prefix: of the copies.
        say: called with each line for the log.
    """

    def __init__(self, objects: Objects, prefix: str, say: Callable[[str], None]) -> None:
        self._objects, self._prefix, self._say = objects, prefix, say
        self._copier = ThreadPoolExecutor(1, "shared-snapshots")
        self._waiting: dict[Partition, Saved] = {}
        self._lock = Lock()

    def read(self, partition: Partition) -> Saved | None:
        """The copy of a partition's file; None without one, or if the store does not answer."""
        key = self._key(partition)
        try:
            content = self._objects.read(key)
            where = f"{self._objects.uri}/{key}"
            return None if content is None else _decoded(content, partition, where)
        except (SharedStoreError, IntegrityError) as error:
            self._say(f"{partition}: no snapshot from the shared store: {error}")
            return None

    def copy(self, saved: Saved) -> None:
        """Copy a partition's state soon, without waiting."""
        with self._lock:
            is_new = saved.partition not in self._waiting
            self._waiting[saved.partition] = saved
        if is_new:
            self._copier.submit(self._copy, saved.partition)

    def close(self) -> None:
        """Wait for the last copies."""
        self._copier.shutdown()

    def _copy(self, partition: Partition) -> None:
        with self._lock:
            saved = self._waiting.pop(partition)
        try:
            self._objects.write(self._key(partition), _encoded(saved))
        except SharedStoreError as error:
            self._say(f"no copy of the snapshot of {partition}: {error.what}")

    def _key(self, partition: Partition) -> str:
        return f"{self._prefix}/{file_of(Path(), partition).name}"


def _encoded(saved: Saved) -> bytes:
    body = msgspec.msgpack.encode(saved)
    return bytes.fromhex(hash_bytes(body)) + body


def _decoded(content: bytes, partition: Partition, where: str) -> Saved:
    digest, body = content[:HASH_BYTES], content[HASH_BYTES:]
    if digest.hex() != hash_bytes(body):
        raise _refusal(where, "the file is truncated or changed")
    try:
        saved = msgspec.msgpack.decode(body, type=Saved)
    except msgspec.DecodeError as error:
        raise _refusal(where, f"the file has another layout: {error}") from error
    if saved.partition != partition:
        raise _refusal(where, f"the file is of {saved.partition}")
    return saved


def _refusal(where: str, what: str) -> IntegrityError:
    return IntegrityError(what, where=where, remedy="nothing: the windows fill again from 64 ticks")
