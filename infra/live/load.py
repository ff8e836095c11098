"""Open-loop load: ticks to the broker when each is due, decisions read back from their topic.

A tick's stamp is the moment it was due, so that the decision itself says how long ago that was.
"""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec
import numpy as np
import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.live.kafka.clients import REQUEST_S, KafkaSpec
from infra.live.kafka.producer import Outbox
from infra.process import cpu_seconds
from model_code.errors import StreamError
from model_code.live.messages import Decision, Quote, Tick, encode, read
from model_code.live.tick_times import TickTimes, matrix, stage_times

WARM_S = 3.0
SETTLE_S = 1.0  # without a decision, after which no more is expected
MOST_SETTLE_S = 10.0
START_S = 0.1
ENCODE_S = 10e-6  # at most, for a tick
FULL_S = 0.001
POLL_S = 0.05


@dataclass(frozen=True)
class Target:
    """Where the ticks go and whose processor time is counted.

    Attributes:
        kafka: broker and topics.
        keys: key of each instrument's group.
        processes: pid by name; with their descendants.
    """

    kafka: KafkaSpec
    keys: Mapping[str, str]
    processes: Mapping[str, int]


class Decisions:
    """Reads new decisions of a topic in a thread of its own.

    Args:
        kafka: of the topic.
        take: called in that thread with each decision and the time, ns since the epoch.

    Raises:
        StreamError: the broker does not know the topic or does not respond.
    """

    def __init__(self, kafka: KafkaSpec, take: Callable[[Decision, int], None]) -> None:
        settings = kafka.consumer() | {"group.id": f"{kafka.group_id}-load", "log_level": 0}
        self._consumer = Consumer(settings)
        try:
            topics = self._consumer.list_topics(kafka.decisions, REQUEST_S).topics
            found = [TopicPartition(kafka.decisions, n) for n in topics[kafka.decisions].partitions]
            for one in found:
                one.offset = self._consumer.get_watermark_offsets(one, REQUEST_S)[1]
            if not found:
                raise StreamError("no topic of decisions", remedy="start the service first")
            self._consumer.assign(found)
        except KafkaException as error:
            raise StreamError(
                f"decisions cannot be read: {error.args[0].str()}",
                where=kafka.bootstrap,
                remedy="check the broker",
            ) from error
        self._take = take
        self.count = 0
        """Decisions read."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)

    def __enter__(self) -> "Decisions":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._consumer.close()

    def settle(self) -> None:
        """Wait until no more decisions come."""
        until, count = time.monotonic() + MOST_SETTLE_S, -1
        while count != self.count and time.monotonic() < until:
            count = self.count
            time.sleep(SETTLE_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            message = self._consumer.poll(POLL_S)
            if message is not None and message.error() is None:
                at_ns = time.time_ns()
                self._take(read(Decision, message.value() or b""), at_ns)
                self.count += 1


def bursts(ticks: Iterable[Tick], keys: Mapping[str, str], size: int) -> Iterator[list[Tick]]:
    """Ticks that travel in one message: `size` in a row, as far as they have the same key."""
    source = iter(ticks)
    while chunk := list(islice(source, size)):
        first = 0
        for place in range(1, len(chunk) + 1):
            if place == len(chunk) or keys[chunk[place].symbol] != keys[chunk[first].symbol]:
                yield chunk[first:place]
                first = place


def load(
    target: Target,
    ticks: Iterable[Tick],
    *,
    rate: float,
    seconds: float,
    warm_s: float = WARM_S,
    burst: int = 1,
) -> TickTimes:
    """Send ticks at a rate and measure their decisions.

    Args:
        target: broker, topics, processes.
        ticks: in their order; enough for the time.
        rate: ticks a second.
        seconds: to measure.
        warm_s: before, not measured: windows fill, connections open.
        burst: ticks of one instant, in one message where their key is the same.

    Raises:
        StreamError: the broker refuses, or a decision cannot be read.
    """
    count = math.ceil(rate * (warm_s + seconds)) + burst
    messages = list(bursts(islice(ticks, count), target.keys, burst))
    outbox = Outbox(target.kafka)
    found: list[tuple[Decision, int]] = []
    with Decisions(target.kafka, lambda *one: found.append(one)) as decisions:
        sender = _Sender(outbox, target, rate, messages)
        sender.send(warm_s)
        before, _ = cpu_seconds(target.processes), psutil.cpu_percent()
        counted, late = sender.counts.copy(), len(sender.late_ns)
        begun_ns = sender.due_ns
        sender.send(seconds)
        ended_ns = sender.due_ns
        after, busy = cpu_seconds(target.processes), psutil.cpu_percent() / 100
        outbox.flush(REQUEST_S)
        decisions.settle()
    found = [one for one in found if begun_ns <= one[0].local_ns < ended_ns]
    sent = sender.counts - counted
    return TickTimes(
        rate=rate,
        seconds=(ended_ns - begun_ns) / 1e9,
        ticks=sent.total(),
        quotes=sent["Quote"],
        stage_NS=matrix([stage_times(one, at_ns) for one, at_ns in found]),
        sent_late_N=np.array(sender.late_ns[late:], np.int64),
        cpu_s={name: after[name] - before[name] for name in after},
        busy=busy,
        answered_by=Counter(one.flags for one, _ in found),
    )


class _Sender:
    """Sends messages when they are due; never skips one that is late.

    Everything is encoded before the first is due.
    """

    def __init__(
        self, outbox: Outbox, target: Target, rate: float, messages: Sequence[Sequence[Tick]]
    ) -> None:
        self._outbox, self._topic = outbox, target.kafka.ticks[0]
        keys = {symbol: key.encode() for symbol, key in target.keys.items()}
        total = sum(len(ticks) for ticks in messages)
        self._begun_ns = time.time_ns() + int((START_S + total * ENCODE_S) * 1e9)
        self._step_ns = 1e9 / rate
        self.counts: Counter[str] = Counter()
        self.late_ns: list[int] = []
        self._messages: deque[tuple[int, bytes, bytes, Sequence[Tick]]] = deque()
        count = 0
        for ticks in messages:
            due_ns = self._begun_ns + int(count * self._step_ns)
            stamped = [msgspec.structs.replace(tick, local_ns=due_ns) for tick in ticks]
            payload = encode(stamped[0] if len(stamped) == 1 else stamped)
            self._messages.append((due_ns, keys[ticks[0].symbol], payload, ticks))
            count += len(ticks)

    @property
    def due_ns(self) -> int:
        """When the next message is due."""
        return self._begun_ns + int(self.counts.total() * self._step_ns)

    def send(self, seconds: float) -> None:
        """Send for this long.

        Raises:
            StreamError: the broker refuses, or there are too few ticks.
        """
        until = self.due_ns + int(seconds * 1e9) - 1
        while self.due_ns < until:
            if not self._messages:
                raise StreamError("the ticks are used up", remedy="a lower rate, or a shorter time")
            due_ns, key, payload, ticks = self._messages.popleft()
            wait_ns = due_ns - time.time_ns()
            if wait_ns > 0:
                time.sleep(wait_ns / 1e9)
            while not self._outbox.send(self._topic, key, payload):
                time.sleep(FULL_S)
                self._outbox.poll()
            self.late_ns.append(max(time.time_ns() - due_ns, 0))
            self._outbox.poll()
            self.counts.update("Quote" if isinstance(tick, Quote) else "Trade" for tick in ticks)
