"""Writes a client's outcomes in the background of its event loop."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from model_code.comparison.outcomes import Outcome, OutcomeWriter

FLUSH_S = 0.25


class OutcomeLog:
    """Keeps outcomes and writes them soon afterwards; a request never waits for the disk.

    Args:
        route_file: of the serving repository.
        say: called with a line if outcomes cannot be written.

    Attributes:
        error: why outcomes could not be written; None: they could.
    """

    def __init__(self, route_file: Path, say: Callable[[str], None] | None = None) -> None:
        self._writer, self._say = OutcomeWriter(route_file), say
        self._closing, self._waiting = asyncio.Event(), False
        self._tasks: set[asyncio.Task[None]] = set()
        self.error: str | None = None

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Keep them; they are written within `FLUSH_S`."""
        for outcome in outcomes:
            self._writer.add(outcome)
            if not self._waiting:
                self._waiting = True
                task = asyncio.get_running_loop().create_task(self._write())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Write what is kept, without waiting longer."""
        self._closing.set()
        await asyncio.gather(*self._tasks)

    async def _write(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), FLUSH_S)
        self._waiting = False  # what is added from now on is written by another task
        try:
            await asyncio.to_thread(self._writer.write, self._writer.take())
        except OSError as error:
            self.error = str(error)
            if self._say is not None:
                self._say(f"a canary cannot judge this traffic: {error}")
