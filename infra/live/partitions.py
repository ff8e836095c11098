"""The paths of the partitions that a service owns, their ledger and their snapshots."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.live import snapshots
from infra.live.kafka.clients import Partition
from infra.live.kafka.consumer import Received
from infra.live.snapshots import Saved, SharedSnapshots
from model_code.errors import IntegrityError
from model_code.live.ledger import Ledger
from model_code.live.messages import DeadLetter
from model_code.live.path import LivePath
from model_code.live.reasons import Reason


class Partitions:
    """One path for each group of each partition, made when its first message comes.

    Args:
        groups: instruments by the group's key.
        make_path: a fresh path of these instruments.
        folder: of the snapshots.
        say: called with each line for the log.
        shared: copies of the snapshots; None: there are none.
    """

    def __init__(
        self,
        groups: Mapping[str, tuple[str, ...]],
        make_path: Callable[[tuple[str, ...]], LivePath],
        folder: Path,
        say: Callable[[str], None],
        shared: SharedSnapshots | None = None,
    ) -> None:
        self._groups = {key.encode(): symbols for key, symbols in groups.items()}
        self._make_path, self._folder, self._say = make_path, folder, say
        self._shared = shared
        self._paths: dict[Partition, dict[bytes, LivePath]] = {}
        self._next: dict[Partition, int] = {}
        self._ended = Ledger()  # of partitions given up, and of messages of no group
        self._writer = ThreadPoolExecutor(1, "snapshots")

    @property
    def owned(self) -> list[Partition]:
        """The partitions."""
        return sorted(self._paths)

    @property
    def paths(self) -> list[LivePath]:
        """Those of all partitions."""
        return [path for paths in self._paths.values() for path in paths.values()]

    @property
    def ledger(self) -> Ledger:
        """Of all messages since the start."""
        total = Ledger()
        for one in (self._ended, *(path.ledger for path in self.paths)):
            total.add(one)
        return total

    def take(self, partition: Partition) -> int | None:
        """Own a partition from now on; where its snapshot continues, None without one."""
        self._paths[partition] = {}
        self._writer.submit(lambda: None).result()  # a write of an earlier time is over
        saved = self._newest(partition)
        restored = (
            [] if saved is None else [key for key in saved.groups if self._restore(saved, key)]
        )
        if saved is None or not restored:
            return None
        self._say(f"{partition}: continues at {saved.offset:,} with {', '.join(restored)}")
        self._next[partition] = saved.offset
        return saved.offset

    def take_new(self, partition: Partition) -> None:
        """Own a partition in which nothing was committed; an older snapshot is not of it."""
        self._paths[partition] = {}

    def give_up(self, partition: Partition) -> None:
        """Own a partition no longer."""
        for path in self._paths.pop(partition, {}).values():
            path.stop()
            self._ended.add(path.ledger)
        self._next.pop(partition, None)

    def path(self, one: Received) -> LivePath | None:
        """The path that takes a message; None if its key is of no group."""
        paths = self._paths.setdefault(one.partition, {})
        path = paths.get(one.key)
        if path is None and one.key in self._groups:
            path = paths[one.key] = self._make_path(self._groups[one.key])
        return path

    def of_no_group(self, one: Received, now_ns: int) -> DeadLetter:
        """Count a message that no path takes."""
        self._ended.taken += 1
        self._ended.end(Reason.UNKNOWN_SYMBOL)
        detail = f"the key {one.key[:100]!r} is of no group"
        return DeadLetter(
            reason=Reason.UNKNOWN_SYMBOL, detail=detail, at_ns=now_ns, payload=one.value
        )

    def processed(self, positions: Mapping[Partition, int]) -> None:
        """The paths have taken everything before these offsets."""
        self._next |= positions

    def snapshots(self, partitions: Sequence[Partition]) -> list[Saved]:
        """The state of these partitions now; no window may wait."""
        return [
            Saved(
                partition.topic,
                partition.number,
                self._next[partition],
                {
                    key.decode(): path.group.snapshot()
                    for key, path in self._paths[partition].items()
                },
            )
            for partition in partitions
            if self._paths.get(partition) and partition in self._next
        ]

    def write(self, saved: Sequence[Saved]) -> None:
        """Write snapshots, without waiting for the disk."""
        for one in saved:
            self._writer.submit(self._write, one)

    def close(self) -> None:
        """Wait for the disk, and for the shared store if there is one."""
        self._writer.shutdown()
        if self._shared is not None:
            self._shared.close()

    def _newest(self, partition: Partition) -> Saved | None:
        """The snapshot that is furthest on: another host may have had the partition since."""
        try:
            here = snapshots.read(self._folder, partition)
        except (IntegrityError, OSError) as error:
            self._say(f"{partition} warms up again: {error}")
            here = None
        there = None if self._shared is None else self._shared.read(partition)
        found = [one for one in (here, there) if one is not None]
        return max(found, key=lambda one: one.offset, default=None)

    def _write(self, saved: Saved) -> None:
        try:
            snapshots.write(self._folder, saved)
            if self._shared is not None:
                self._shared.copy(saved)
        except Exception as error:  # a restart then begins at an older snapshot
            self._say(f"no snapshot of {saved.partition}: {error}")

    def _restore(self, saved: Saved, key: str) -> bool:
        symbols = self._groups.get(key.encode())
        if symbols is None:
            self._say(f"{saved.partition}: group {key} of the snapshot is not served")
            return False
        path = self._make_path(symbols)
        try:
            path.group.restore(saved.groups[key])
        except IntegrityError as error:
            self._say(f"{saved.partition}: group {key} warms up again: {error}")
            return False
        self._paths[saved.partition][key.encode()] = path
        return True
