"""Messages in: one thread polls Kafka and hands batches to the event loop.

Positions are stored by the caller, after the outputs of the messages were confirmed. When too many
messages wait to be processed, the partitions pause; the thread still polls, so that the group does
not take them away.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.live.kafka.clients import REQUEST_S, KafkaSpec, Partition, quiet
from model_code.errors import StreamError

POLL_S = 0.1
MOST = 500  # messages in one hand-over
STATISTICS_MS = 1000


class _Lag(msgspec.Struct):
    consumer_lag: int = -1
    fetch_state: str = ""


class _Topic(msgspec.Struct):
    partitions: dict[str, _Lag] = {}


class _Broker(msgspec.Struct):
    state: str = ""


class _Statistics(msgspec.Struct):
    """What is read of the client's statistics."""

    topics: dict[str, _Topic] = {}
    brokers: dict[str, _Broker] = {}


_STATISTICS = msgspec.json.Decoder(_Statistics)


class Received(NamedTuple):
    """A message, where it came from, and when: ns since the epoch."""

    partition: Partition
    offset: int
    key: bytes
    value: bytes
    at_ns: int


class Handler(Protocol):
    """What the messages are handed to; all calls come in the event loop's thread."""

    def received(self, batch: Sequence[Received]) -> None:
        """Take a batch; `Inbox.processed` must follow."""

    async def assigned(self, committed: Mapping[Partition, int | None]) -> dict[Partition, int]:
        """Prepare for partitions; return where to begin if not at the committed offset."""

    async def revoked(self, partitions: Sequence[Partition], *, lost: bool) -> None:
        """Finish with partitions; if they are lost, others own them already."""

    def failed(self, error: BaseException) -> None:
        """The consumer has stopped because of an error."""


class Inbox:
    """The consumer's thread."""

    def __init__(self, spec: KafkaSpec, handler: Handler, say: Callable[[str], None]) -> None:
        self._spec, self._handler, self._say = spec, handler, say
        self._report = quiet(say)
        config = {
            **spec.consumer(),
            "error_cb": self._report,
            "log_level": 0,
            "statistics.interval.ms": STATISTICS_MS,
            "stats_cb": self._read_statistics,
        }
        try:
            self._consumer = Consumer(config)
        except KafkaException as error:
            raise StreamError(
                f"no consumer: {error.args[0].str()}", remedy="correct the Kafka settings"
            ) from error
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-consumer", daemon=True)
        self._batch: list[Received] = []
        self._lock = threading.Lock()
        self._positions: dict[Partition, int] = {}
        # each is written by one thread only
        self._handed = self._processed = 0
        self._paused: list[TopicPartition] = []
        self.pauses = 0
        """How often the partitions paused because too many messages waited."""
        self.lag: dict[Partition, int] = {}
        """Messages of each owned partition that were not received yet; -1: unknown."""
        self.broker_error: str | None = None
        """Why no broker can be reached; empty if one can; None: not known yet."""

    @property
    def unprocessed(self) -> int:
        """Messages handed over that still wait."""
        return self._handed - self._processed

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Join the group and begin."""
        self._loop = loop
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread polls."""
        return self._thread.is_alive()

    async def stop(self) -> None:
        """Take no more messages, finish with all partitions, leave the group."""
        self._stopping.set()
        while self._thread.is_alive():
            await asyncio.sleep(POLL_S / 10)

    def processed(self, count: int) -> None:
        """This many of the received messages no longer wait."""
        self._processed += count

    def store(self, positions: Mapping[Partition, int]) -> None:
        """Everything before these offsets is done; the client commits it every few seconds."""
        with self._lock:
            self._positions |= positions

    def _store(self) -> None:
        """Tell the client; from the thread that polls, since elsewhere both may wait for ever."""
        with self._lock:
            positions, self._positions = self._positions, {}
        for partition, offset in positions.items():
            try:
                self._consumer.store_offsets(offsets=[TopicPartition(*partition, offset)])
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE:  # another owns it by now
                    raise

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                list(self._spec.ticks),
                on_assign=self._on_assign,
                on_revoke=lambda _, partitions: self._give_up(partitions, lost=False),
                on_lost=lambda _, partitions: self._give_up(partitions, lost=True),
            )
            while not self._stopping.is_set():
                self._store()
                self._throttle()
                message = self._consumer.poll(POLL_S)
                while message is not None:
                    self._take(message)
                    message = self._consumer.poll(0) if len(self._batch) < MOST else None
                self._hand_over()
        except BaseException as error:  # of a callback too; the service stops and says it
            self._loop.call_soon_threadsafe(self._handler.failed, error)
        try:
            self._consumer.close()  # revokes all partitions, commits what was stored
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._handler.failed, error)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is None:
            partition = Partition(str(message.topic()), int(message.partition() or 0))
            received = Received(
                partition,
                int(message.offset() or 0),
                message.key() or b"",
                message.value() or b"",
                time.time_ns(),
            )
            self._batch.append(received)
        elif error.fatal() or error.code() in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        ):
            raise StreamError(
                f"the consumer stopped: {error.str()}",
                where=self._spec.bootstrap,
                remedy="check the broker and its access rules, then start again",
            )
        else:
            self._report(error)

    def _hand_over(self) -> None:
        if self._batch:
            self._handed += len(self._batch)
            self._loop.call_soon_threadsafe(self._handler.received, self._batch)
            self._batch = []

    def _read_statistics(self, text: str) -> None:
        """Called once a second, by `poll`."""
        found = _STATISTICS.decode(text)
        self.lag = {
            Partition(topic, int(number)): one.consumer_lag
            for topic, partitions in found.topics.items()
            for number, one in partitions.partitions.items()
            if one.fetch_state == "active"
        }
        up = "UP" in [one.state for one in found.brokers.values()]
        self.broker_error = "" if up else "no broker can be reached"

    def _throttle(self) -> None:
        waiting = self.unprocessed
        if not self._paused and waiting > self._spec.most_unprocessed:
            self._paused = self._consumer.assignment()
            self._consumer.pause(self._paused)
            self.pauses += 1
        elif self._paused and waiting <= self._spec.most_unprocessed // 2:
            owned = set(self._consumer.assignment())
            self._consumer.resume([one for one in self._paused if one in owned])
            self._paused = []

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._hand_over()
        committed = {
            Partition(one.topic, one.partition): one.offset if one.offset >= 0 else None
            for one in self._consumer.committed(partitions, REQUEST_S)
        }
        begin = self._wait(self._handler.assigned(committed))
        for one in partitions:
            offset = begin.get(Partition(one.topic, one.partition))
            if offset is not None and self._holds(one, offset):
                one.offset = offset
        self._consumer.incremental_assign(partitions)
        if self._paused:
            self._consumer.pause(partitions)
            self._paused += partitions

    def _holds(self, one: TopicPartition, offset: int) -> bool:
        """Whether the broker still has this offset; without it, reading would begin at `start`."""
        first, _ = self._consumer.get_watermark_offsets(one, REQUEST_S)
        if first > offset:
            name = Partition(one.topic, one.partition)
            self._say(f"{name} begins at {first:,}, behind the snapshot's {offset:,}: not used")
        return bool(first <= offset)

    def _give_up(self, partitions: list[TopicPartition], *, lost: bool) -> None:
        self._hand_over()
        names = [Partition(one.topic, one.partition) for one in partitions]
        self._wait(self._handler.revoked(names, lost=lost))
        self._store()
        self._consumer.incremental_unassign(partitions)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
