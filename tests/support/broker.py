"""A broker of Kafka's protocol in memory (Tansu) for tests. It is not Kafka."""

import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from infra import services
from infra.live.kafka.clients import DEMO, KafkaSpec
from infra.servers import free_port
from infra.services import Plan
from model_code.settings import Settings


@contextmanager
def demo_broker(home: Path) -> Iterator[str]:
    """The broker that `tickline up --with tansu` starts; its address."""
    plan = Plan(names=("tansu",), ports={"tansu": free_port()})
    (service,) = services.build(Settings(home=home), plan)
    process = subprocess.Popen(
        service.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 20
        while not service.healthy():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        yield f"127.0.0.1:{plan.ports['tansu']}"
    finally:
        process.kill()
        process.wait()


def kafka_spec(bootstrap: str, **changes: Any) -> KafkaSpec:
    """Settings for the demo broker, with topics and a group that no other test uses."""
    name = uuid.uuid4().hex[:8]
    values: dict[str, Any] = {
        "ticks": (f"ticks-{name}",),
        "decisions": f"decisions-{name}",
        "group_id": f"group-{name}",
        "partitions": 2,
    }
    return KafkaSpec(bootstrap=bootstrap, **(DEMO | values | changes))


def read_all(spec: KafkaSpec, topic: str, count: int) -> list[Message]:
    """The first `count` messages of a topic, of each partition in order."""
    consumer = Consumer({**spec.consumer(), "group.id": uuid.uuid4().hex})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(spec.partitions)])
    found: list[Message] = []
    until = time.monotonic() + 20
    while len(found) < count and time.monotonic() < until:
        message = consumer.poll(0.1)
        if message is not None:
            assert message.error() is None
            found.append(message)
    extra = consumer.poll(0.2)
    assert extra is None
    consumer.close()
    return found


def headers(message: Message) -> Mapping[str, bytes]:
    """A message's headers by name."""
    found = {}
    for name, value in dict(message.headers() or []).items():
        assert isinstance(value, bytes)
        found[name] = value
    return found
