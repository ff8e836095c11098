"""The live path on Kafka: ticks in, decisions and dead letters out, at least once.

    poll thread -> queue -> paths of the partition's groups -> model -> producer -> positions

Everything but the poll thread happens in one event loop. A position is stored when the broker has
confirmed the outputs of all messages before it; a snapshot is written at the same moment.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from infra.live.kafka.clients import Partition
from infra.live.kafka.consumer import Inbox, Received
from infra.live.kafka.producer import Outbox
from infra.live.model import Model
from infra.live.outputs import Output, Sink, decide, decision
from infra.live.partitions import Partitions
from infra.live.positions import Positions, Round
from infra.live.rounds import Rounds, Taken
from infra.live.snapshots import SharedSnapshots
from infra.live.spec import ServiceSpec
from infra.live.status import Status
from model_code.errors import StreamError
from model_code.live.ledger import Ledger
from model_code.live.messages import Decision
from model_code.live.path import LivePath

SERVE_S = 0.005
BEAT_S = 1.0


class Service:
    """Consumes ticks, decides, publishes.

    Args:
        spec: of the service.
        groups: instruments by the group's key, from `model_code.live.groups`.
        make_path: a fresh path of these instruments.
        model: answers.
        folder: of the snapshots.
        say: called with each line for the log.
        sinks: also take the decisions.
        alive: touched every second while the service works; for a probe.
        shared: copies of the snapshots, for another host; None: there are none.
    """

    def __init__(
        self,
        spec: ServiceSpec,
        groups: Mapping[str, tuple[str, ...]],
        make_path: Callable[[tuple[str, ...]], LivePath],
        model: Model,
        folder: Path,
        say: Callable[[str], None],
        sinks: Sequence[Sink] = (),
        alive: Path | None = None,
        shared: SharedSnapshots | None = None,
    ) -> None:
        self._spec, self._say, self._model, self._sinks = spec, say, model, sinks
        self.partitions = Partitions(groups, make_path, folder, say, shared)
        self._outbox = Outbox(spec.kafka, say)
        self._inbox = Inbox(spec.kafka, self, say)
        self._queue: asyncio.Queue[Sequence[Received]] = asyncio.Queue()
        self._taken = Taken()
        self._rounds = Rounds(
            spec.rounds_in_flight, self._decide, self._publish, self.failed, self._finish
        )
        self._room = asyncio.Event()
        self._next_round_at = 0.0  # event loop time
        self._pause: asyncio.TimerHandle | None = None
        self._positions = Positions()
        self._error: BaseException | None = None
        self._stop = asyncio.Event()
        self._snapshot_at = time.monotonic() + spec.snapshot_s
        self._sink_failures, self._alive = 0, alive

    def stop(self) -> None:
        """Finish what was received, then end `run`."""
        self._stop.set()

    async def run(self) -> Ledger:
        """Serve until `stop`.

        Returns:
            The ledger.

        Raises:
            StreamError: the broker refuses, or did not confirm the outputs in time. Their
                positions are not stored: the next start decides again.
        """
        self._inbox.start(asyncio.get_running_loop())
        works = (self._work, self._serve, self._report, self._beat)
        tasks = [asyncio.create_task(work()) for work in works]
        try:
            await self._stop.wait()
            leaving = asyncio.create_task(self._inbox.stop())
            await asyncio.wait({leaving}, timeout=2 * self._spec.drain_s)
            if not leaving.done():
                self.failed(self._late())
            await asyncio.wait_for(leaving, timeout=2 * self._spec.drain_s)
        except TimeoutError:
            self.failed(self._late())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._rounds.cancel()
            await asyncio.to_thread(self.partitions.close)
            self._outbox.close()
        if self._error is not None:
            raise self._error
        return self.partitions.ledger

    @property
    def state(self) -> str:
        """The ledger in one line, and what was counted besides."""
        counts = {
            "producer queue full": self._outbox.full,
            "partitions paused": self._inbox.pauses,
            "sink failed": self._sink_failures,
        }
        parts = [f"{name} {count:,}" for name, count in counts.items() if count]
        return "; ".join([str(self.partitions.ledger), *parts])

    @property
    def status(self) -> Status:
        """The counts of this moment; read it in the event loop."""
        return Status(
            ledger=self.partitions.ledger,
            waiting=sum(path.waiting for path in self.partitions.paths),
            lag=self._inbox.lag,
            unprocessed=self._inbox.unprocessed,
            unconfirmed=len(self._outbox),
            queue_full=self._outbox.full,
            pauses=self._inbox.pauses,
            sink_failures=self._sink_failures,
            broker_error=self._inbox.broker_error,
        )

    # called by the consumer, in the event loop

    def received(self, batch: Sequence[Received]) -> None:
        """Queue a batch."""
        self._queue.put_nowait(batch)

    async def assigned(self, committed: Mapping[Partition, int | None]) -> dict[Partition, int]:
        """Restore the snapshots; begin where each was taken."""
        begin = {}
        for partition, offset in committed.items():
            if offset is None:
                self.partitions.take_new(partition)
                continue
            continues = self.partitions.take(partition)
            if continues is not None:
                begin[partition] = continues
        return begin

    async def revoked(self, partitions: Sequence[Partition], *, lost: bool) -> None:
        """Finish with the partitions: their outputs are confirmed, or will be decided again."""
        await self._queue.join()
        until = time.monotonic() + (0.0 if lost else self._spec.drain_s)
        while len(self._positions) and self._error is None and time.monotonic() < until:
            await asyncio.sleep(SERVE_S)
        if not lost and self._error is None and len(self._positions) == 0:
            self.partitions.write(self.partitions.snapshots(partitions))
        undone = self._positions.drop(partitions)
        if undone and self._stop.is_set():
            self.failed(self._late())
        for partition in partitions:
            self.partitions.give_up(partition)

    def failed(self, error: BaseException) -> None:
        """Stop because of an error; the first one counts."""
        self._error = self._error or error
        self._stop.set()

    # tasks of the event loop

    async def _work(self) -> None:
        while True:
            batch = await self._queue.get()
            self._taken.batches += 1
            self._taken.messages += len(batch)
            try:
                for one in batch if self._error is None else ():
                    self._taken.take(one, self.partitions, every_window=self._spec.every_window)
            except Exception as error:
                self.failed(error)
            self._dispatch()
            await asyncio.sleep(0)  # answers first
            while self._spec.every_window and self._rounds.full:
                self._room.clear()
                await self._room.wait()

    async def _serve(self) -> None:
        while True:
            try:
                self._outbox.poll()
                positions, saved = self._positions.done()
                self._inbox.store(positions)
                self.partitions.write(saved)
            except Exception as error:
                self.failed(error)
            await asyncio.sleep(SERVE_S)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._spec.report_s)
            self._say(self.state)

    async def _beat(self) -> None:
        while self._alive is not None:
            if self._inbox.running:
                with suppress(OSError):  # a full disk must not end the service
                    self._alive.parent.mkdir(parents=True, exist_ok=True)
                    self._alive.touch()
            await asyncio.sleep(BEAT_S)

    def _dispatch(self) -> None:
        """Begin a round with all that was taken, unless enough are under way or one just began.

        Until then a newer window replaces the one in its slot.
        """
        if self._rounds.full or not self._taken.batches or self._pause is not None:
            return
        loop = asyncio.get_running_loop()
        if self._error is None and loop.time() < self._next_round_at:
            self._pause = loop.call_at(self._next_round_at, self._end_pause)
            return
        self._next_round_at = loop.time() + self._spec.round_gap_ms / 1e3
        one, self._taken = self._taken, Taken()
        try:
            if self._error is None:
                due = time.monotonic() >= self._snapshot_at
                if due:
                    self._snapshot_at = time.monotonic() + self._spec.snapshot_s
                one.complete(self.partitions, snapshots=due)
        except Exception as error:
            self.failed(error)
        if self._error is None:
            self._rounds.start(one)
        else:
            self._release(one)

    def _end_pause(self) -> None:
        self._pause, self._next_round_at = None, 0.0
        self._dispatch()

    async def _decide(self, one: Taken) -> list[Decision]:
        return await decide(self._model, one.asked, self._say)

    async def _publish(self, one: Taken, decisions: list[Decision]) -> None:
        if self._error is not None:  # of an earlier round: these positions must not be stored
            return
        outputs = [
            *one.outputs,
            *(decision(self._spec.kafka.decisions, found) for found in decisions),
        ]
        done = Round(one.positions, len(outputs), one.snapshots)
        self._positions.add(done)
        for output in outputs:
            await self._send(output, done)
        windows = [found for _, found in one.asked]
        for sink in self._sinks if windows else ():
            try:
                await sink.write(decisions, windows)
            except Exception as error:
                self._say(f"{type(sink).__name__} did not take decisions: {error}")
                self._sink_failures += 1

    def _finish(self, one: Taken) -> None:
        self._release(one)
        self._room.set()
        self._dispatch()

    def _release(self, one: Taken) -> None:
        """These messages no longer wait."""
        self._inbox.processed(one.messages)
        for _ in range(one.batches):
            self._queue.task_done()

    async def _send(self, output: Output, done: Round) -> None:
        waited = False
        while not self._outbox.send(*output, done=done.confirm):
            if not waited:
                self._say("the producer's queue is full: the broker is away or too slow; waiting")
            waited = True
            if self._error is not None:
                raise self._error
            await asyncio.sleep(SERVE_S)

    def _late(self) -> StreamError:
        return StreamError(
            f"{len(self._outbox):,} outputs were not confirmed within {self._spec.drain_s:g} s",
            where=self._spec.kafka.bootstrap,
            remedy="check the broker and start again: nothing is lost, "
            "positions are stored only after delivery",
        )
