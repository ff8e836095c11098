"""Rounds of messages at the model, several at once; each is published after those before it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from infra.live.kafka.clients import Partition
from infra.live.kafka.consumer import Received
from infra.live.outputs import Output, Windows, dead_letter, ready
from infra.live.partitions import Partitions
from infra.live.snapshots import Saved
from model_code.live.messages import Decision


@dataclass
class Taken:
    """Messages that the paths have taken since the round before.

    Attributes:
        batches, messages: how many.
        positions: the next offset of each of their partitions.
        outputs: dead letters so far.
        asked: windows to ask the model about.
        snapshots: state after these messages, if it was time for them.
    """

    batches: int = 0
    messages: int = 0
    positions: dict[Partition, int] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    asked: list[Windows] = field(default_factory=list)
    snapshots: list[Saved] = field(default_factory=list)

    def take(self, one: Received, partitions: Partitions, *, every_window: bool) -> None:
        """Let the path of a message take it; without `every_window` its window waits in a slot."""
        self.positions[one.partition] = one.offset + 1
        path = partitions.path(one)
        if path is None:
            self.outputs.append(dead_letter(one, partitions.of_no_group(one, one.at_ns)))
            return
        letters = [outcome.letter for outcome in path.take(one.value, one.at_ns)]
        self.outputs += [dead_letter(one, letter) for letter in letters if letter is not None]
        if every_window:
            self.asked += ready(path, time.time_ns())

    def complete(self, partitions: Partitions, *, snapshots: bool) -> None:
        """Add the windows that wait in slots; afterwards none does, and the state may be saved."""
        for path in partitions.paths:
            self.asked += ready(path, time.time_ns())
        partitions.processed(self.positions)
        if snapshots:
            self.snapshots = partitions.snapshots(partitions.owned)


class Rounds:
    """Rounds between the paths and the producer.

    Args:
        most: rounds at once.
        decide: answers for a round.
        publish: called in the order of `start`.
        failed: called with an error of either.
        finished: called after each round, also after an error.
    """

    def __init__(
        self,
        most: int,
        decide: Callable[[Taken], Awaitable[list[Decision]]],
        publish: Callable[[Taken, list[Decision]], Awaitable[None]],
        failed: Callable[[BaseException], None],
        finished: Callable[[Taken], None],
    ) -> None:
        self._most, self._decide, self._publish = most, decide, publish
        self._failed, self._finished = failed, finished
        self._tasks: set[asyncio.Task[None]] = set()
        self._newest = asyncio.Event()
        self._newest.set()

    @property
    def full(self) -> bool:
        """Whether no further round may start."""
        return len(self._tasks) >= self._most

    def start(self, one: Taken) -> None:
        """Begin a round."""
        before, self._newest = self._newest, asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._run(one, before, self._newest))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._finished(one))

    async def cancel(self) -> None:
        """End all rounds; what they did not publish is decided again by the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, one: Taken, before: asyncio.Event, done: asyncio.Event) -> None:
        try:
            decisions = await self._decide(one)
            await before.wait()
            await self._publish(one, decisions)
        except Exception as error:
            self._failed(error)
        finally:
            done.set()
