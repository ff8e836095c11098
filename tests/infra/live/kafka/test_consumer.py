"""The consumer's thread: hand-over, positions, partitions that come and go."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import pytest
from confluent_kafka import TopicPartition

from infra.live.kafka.clients import KafkaSpec, Partition, create_topics
from infra.live.kafka.consumer import Inbox, Received
from infra.live.kafka.producer import Outbox
from model_code.errors import StreamError
from tests.support.broker import kafka_spec


class Keeper:
    """Keeps what it is given and stores every position at once."""

    def __init__(self, spec: KafkaSpec, begin: Mapping[Partition, int] | None = None) -> None:
        self.lines: list[str] = []
        self.inbox = Inbox(spec, self, self.lines.append)
        self.begin = dict(begin or {})
        self.messages: list[Received] = []
        self.committed: dict[Partition, int | None] = {}
        self.revocations: list[tuple[list[Partition], bool]] = []
        self.errors: list[BaseException] = []

    def received(self, batch: Sequence[Received]) -> None:
        self.messages += batch
        self.inbox.processed(len(batch))
        self.inbox.store({one.partition: one.offset + 1 for one in batch})

    async def assigned(self, committed: Mapping[Partition, int | None]) -> dict[Partition, int]:
        self.committed |= committed
        return self.begin

    async def revoked(self, partitions: Sequence[Partition], *, lost: bool) -> None:
        self.revocations.append((list(partitions), lost))
        for partition in partitions:
            self.committed.pop(partition)

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)


@pytest.fixture
def spec(broker: str) -> KafkaSpec:
    made = kafka_spec(broker)
    create_topics(made, made.ticks)
    return made


def send(spec: KafkaSpec, numbers: range) -> None:
    outbox = Outbox(spec)
    for number in numbers:
        assert outbox.send(spec.ticks[0], str(number % 8).encode(), str(number).encode())
    assert outbox.flush(10)


def run(*keepers: Keeper, until: Callable[[], bool]) -> None:
    async def serve() -> None:
        for one in keepers:
            one.inbox.start(asyncio.get_running_loop())
        while not until():
            await asyncio.sleep(0.005)
        for one in keepers:
            await one.inbox.stop()

    asyncio.run(asyncio.wait_for(serve(), 20))


def test_a_stop_leaves_the_positions_with_the_broker(spec: KafkaSpec) -> None:
    send(spec, range(100))
    first = Keeper(spec)
    run(first, until=lambda: len(first.messages) == 100)
    assert [lost for _, lost in first.revocations] == [False]
    assert sorted(int(one.value) for one in first.messages) == list(range(100))
    send(spec, range(100, 120))
    second = Keeper(spec)
    run(second, until=lambda: len(second.messages) >= 20)
    assert sorted(int(one.value) for one in second.messages) == list(range(100, 120))
    assert first.errors == second.errors == []


def test_it_begins_where_the_handler_says(spec: KafkaSpec) -> None:
    send(spec, range(80))
    first = Keeper(spec)
    run(first, until=lambda: len(first.messages) == 80)
    ends = {one.partition: one.offset + 1 for one in first.messages}
    again = Keeper(spec, {partition: end - 5 for partition, end in ends.items()})
    run(again, until=lambda: len(again.messages) >= 5 * len(ends))
    assert {one.partition: one.offset + 1 for one in again.messages} == ends
    assert len(again.messages) == 5 * len(ends)


def test_a_place_that_the_broker_has_deleted_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Keeper(kafka_spec("127.0.0.1:1"))
    broker = SimpleNamespace(get_watermark_offsets=lambda *_: (50, 90))
    monkeypatch.setattr(one.inbox, "_consumer", broker)
    assert one.inbox._holds(TopicPartition("ticks", 2), 50)
    assert not one.inbox._holds(TopicPartition("ticks", 2), 49)
    assert one.lines == ["ticks[2] begins at 50, behind the snapshot's 49: not used"]


def test_partitions_move_to_a_second_service_and_each_message_comes_once(spec: KafkaSpec) -> None:
    one, two = Keeper(spec), Keeper(spec)
    numbers = iter(range(0, 10_000, 40))

    async def serve() -> None:
        loop, sent = asyncio.get_running_loop(), 0
        one.inbox.start(loop)
        while len(two.committed) != 1 or not two.messages:
            first = next(numbers)
            await asyncio.to_thread(send, spec, range(first, first + 40))
            sent += 40
            if len(one.committed) == 2 and not two.inbox._thread.is_alive():
                two.inbox.start(loop)
            await asyncio.sleep(0.05)
        while len(one.messages) + len(two.messages) < sent:
            await asyncio.sleep(0.01)
        await one.inbox.stop()
        await two.inbox.stop()
        values = [int(found.value) for found in (*one.messages, *two.messages)]
        assert sorted(values) == list(range(sent))

    asyncio.run(asyncio.wait_for(serve(), 30))
    assert one.revocations[0][0] == [two.messages[0].partition]
    assert one.errors == two.errors == []


def test_an_error_of_the_handler_stops_the_consumer(spec: KafkaSpec) -> None:
    class Broken(Keeper):
        async def assigned(self, committed: Mapping[Partition, int | None]) -> dict[Partition, int]:
            raise StreamError(f"no room for {len(committed)}")

    one = Broken(spec)
    run(one, until=lambda: len(one.errors) > 0)
    assert str(one.errors[0]) == str(StreamError("no room for 2"))


def test_a_wrong_setting_is_an_error() -> None:
    with pytest.raises(StreamError, match="no consumer"):
        Keeper(kafka_spec("127.0.0.1:1", client={"no.such.setting": "1"}))
