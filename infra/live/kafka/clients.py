"""What the Kafka clients are told, and the topics.

The defaults are those of Apache Kafka and its C client. `DEMO` is what the broker in memory of
`tickline up --with tansu` needs instead; that broker is not Kafka.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pydantic import Field

from model_code.errors import StreamError
from model_code.settings import Spec

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
Milliseconds = Annotated[int, Field(ge=1)]
DEMO: dict[str, Any] = {
    "fetch_wait_ms": 20,
    "linger_ms": 1,
    "session_timeout_ms": 2000,
    "heartbeat_ms": 500,
    "replication": 1,
    "start": "earliest",
}
"""For the demo broker: its long poll sleeps, and a join takes half of a session's timeout.

With a shorter wait it answers faster, but returns nothing once a fetch from a long partition takes
longer than that: seen at 24,000 messages with 2 ms, at 12,600 and a busy machine with 5 ms.
"""
REQUEST_S = 10.0


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


class KafkaSpec(Spec):
    """Broker, topics and the clients' times.

    Attributes:
        bootstrap: host:port of some brokers, comma-separated.
        ticks: topics of quotes and trades; dead letters go to the topic's name with `.dlq`.
        decisions: topic of the decisions.
        group_id: services of one group share the partitions.
        start: where to begin in a partition without a stored position.
        partitions, replication: of topics that are created; replication -1: the broker's default.
        linger_ms: how long the producer collects before it sends.
        fetch_wait_ms: how long the broker may wait for new messages.
        session_timeout_ms: after this silence the group gives the partitions to others.
        heartbeat_ms: at most a third of it.
        delivery_timeout_ms: how long the producer tries to deliver.
        idempotent: the producer's retries make no duplicates.
        most_unprocessed: messages handed over and not yet processed; above it, partitions pause.
        client: more settings of librdkafka, for example `security.protocol`.
    """

    KIND: Literal["kafka"] = "kafka"
    bootstrap: Annotated[str, Field(min_length=1)] = "127.0.0.1:9092"
    ticks: Annotated[tuple[Name, ...], Field(min_length=1, strict=False)] = ("tickline.ticks",)
    decisions: Name = "tickline.decisions"
    group_id: Name = "tickline-live"
    start: Literal["earliest", "latest"] = "latest"
    partitions: Annotated[int, Field(ge=1)] = 6
    replication: Annotated[int, Field(ge=-1)] = -1
    linger_ms: Annotated[int, Field(ge=0)] = 5
    fetch_wait_ms: Milliseconds = 500
    session_timeout_ms: Milliseconds = 45_000
    heartbeat_ms: Milliseconds = 3_000
    delivery_timeout_ms: Milliseconds = 300_000
    idempotent: bool = True
    most_unprocessed: Annotated[int, Field(ge=1)] = 10_000
    client: dict[str, str] = Field(default_factory=dict)

    def producer(self) -> dict[str, Any]:
        """Settings of a producer."""
        return {
            "bootstrap.servers": self.bootstrap,
            "enable.idempotence": self.idempotent,
            "linger.ms": self.linger_ms,
            "message.timeout.ms": self.delivery_timeout_ms,
            "partitioner": "murmur2_random",  # as the Java clients: a key has one partition
            **self.client,
        }

    def consumer(self) -> dict[str, Any]:
        """Settings of a consumer; its positions are stored by hand, after publishing."""
        return {
            "bootstrap.servers": self.bootstrap,
            "group.id": self.group_id,
            "enable.auto.offset.store": False,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": self.session_timeout_ms,
            "heartbeat.interval.ms": self.heartbeat_ms,
            "fetch.wait.max.ms": self.fetch_wait_ms,
            "auto.offset.reset": self.start,
            **self.client,
        }


def dead_letters(topic: str) -> str:
    """The topic of a topic's dead letters."""
    return f"{topic}.dlq"


def quiet(say: Callable[[str], None]) -> Callable[[KafkaError], None]:
    """A client's error callback: one line each time the broker goes away, not one per attempt."""
    last = ""

    def report(error: KafkaError) -> None:
        nonlocal last
        text = f"Kafka: {error.str()}"
        if text != last:
            say(text)
        last = text

    return report


def create_topics(spec: KafkaSpec, topics: Iterable[str]) -> list[str]:
    """Create the topics that are missing; return their names.

    Raises:
        StreamError: the broker cannot be reached, or refuses.
    """
    try:
        # the errors come back from the calls; nothing is to be logged
        admin = AdminClient({**spec.client, "bootstrap.servers": spec.bootstrap, "log_level": 0})
        known = admin.list_topics(timeout=REQUEST_S).topics
        wanted = [name for name in dict.fromkeys(topics) if name not in known]
        if not wanted:
            return []
        made = admin.create_topics(
            [NewTopic(name, spec.partitions, spec.replication) for name in wanted],
            request_timeout=REQUEST_S,
        )
        for future in made.values():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
    except KafkaException as error:
        raise StreamError(
            f"no topics: {error.args[0].str()}",
            where=spec.bootstrap,
            remedy="check the broker; for a demo broker in memory: tickline up --with tansu",
        ) from error
    return wanted
