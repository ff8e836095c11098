"""State of a partition's groups with the offset it belongs to: one file, written in one step."""

from pathlib import Path

import msgspec

from infra.live.kafka.clients import Partition
from model_code.artifacts import atomic_file, hash_bytes
from model_code.errors import IntegrityError

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
    body = msgspec.msgpack.encode(saved)
    with atomic_file(file_of(folder, saved.partition)) as path:
        path.write_bytes(bytes.fromhex(hash_bytes(body)) + body)


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
    digest, body = content[:HASH_BYTES], content[HASH_BYTES:]
    if digest.hex() != hash_bytes(body):
        raise _refusal(path, "the file is truncated or changed")
    try:
        saved = msgspec.msgpack.decode(body, type=Saved)
    except msgspec.DecodeError as error:
        raise _refusal(path, f"the file has another layout: {error}") from error
    if saved.partition != partition:
        raise _refusal(path, f"the file is of {saved.partition}")
    return saved


def _refusal(path: Path, what: str) -> IntegrityError:
    return IntegrityError(
        what, where=str(path), remedy="nothing: the windows fill again from 64 ticks"
    )
