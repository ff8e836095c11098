"""Rounds of messages at the model, several at once; each is published after those before it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from infra.live.kafka import Partition
from infra.live.outputs import Output, Windows
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
