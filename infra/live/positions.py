"""Which messages are done: those whose outputs, and all outputs before them, were confirmed."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from infra.live.kafka.clients import Partition
from infra.live.snapshots import Saved


@dataclass
class Round:
    """Messages that were processed together.

    Attributes:
        positions: the next offset of each of their partitions.
        unconfirmed: outputs that the broker has not confirmed.
        snapshots: state after these messages, if it was time for them.
    """

    positions: dict[Partition, int]
    unconfirmed: int
    snapshots: Sequence[Saved] = field(default_factory=list)

    def confirm(self) -> None:
        """One more output is confirmed."""
        self.unconfirmed -= 1


class Positions:
    """Rounds in their order; a round is done when it and all before it are confirmed."""

    def __init__(self) -> None:
        self._rounds: deque[Round] = deque()

    def __len__(self) -> int:
        """Rounds that are not done."""
        return len(self._rounds)

    def add(self, one: Round) -> None:
        """The next round."""
        self._rounds.append(one)

    def done(self) -> tuple[Mapping[Partition, int], list[Saved]]:
        """Remove the rounds that are done; their newest positions and snapshots."""
        positions: dict[Partition, int] = {}
        snapshots: dict[Partition, Saved] = {}
        while self._rounds and self._rounds[0].unconfirmed == 0:
            one = self._rounds.popleft()
            positions |= one.positions
            snapshots |= {saved.partition: saved for saved in one.snapshots}
        return positions, list(snapshots.values())

    def drop(self, partitions: Sequence[Partition]) -> int:
        """Forget partitions that others own now; the number of rounds that were not done."""
        left = [one for one in self._rounds if one.unconfirmed]
        for one in self._rounds:
            for partition in partitions:
                one.positions.pop(partition, None)
            one.snapshots = [saved for saved in one.snapshots if saved.partition not in partitions]
        return len(left)
