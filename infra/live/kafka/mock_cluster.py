"""A broker for measurements, librdkafka's mock cluster: `python -m infra.live.kafka.mock_cluster`.

It prints `host:port` and serves until it is stopped. It is not Kafka: topics exist once they are
asked for, with four partitions, and a partition keeps its newest 5 MB, in memory only. The more
messages a partition holds, the longer a fetch takes, though far less so than with the demo broker.
"""

import signal
import sys

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.live.kafka.clients import REQUEST_S
from model_code.errors import StreamError


def start() -> tuple[AdminClient, str]:
    """Start a cluster; it ends with the client.

    Returns:
        The client and host:port of the broker.
    """
    admin = AdminClient({"test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = admin.list_topics(timeout=REQUEST_S).brokers.values()
    return admin, f"{broker.host}:{broker.port}"


def create_topics(bootstrap: str, topics: list[str]) -> None:
    """Ask for topics, which makes them.

    Raises:
        StreamError: the broker does not respond.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        for topic in topics:
            admin.list_topics(topic, timeout=REQUEST_S)
    except KafkaException as error:
        raise StreamError(
            f"no topics: {error.args[0].str()}", where=bootstrap, remedy="check the broker"
        ) from error


def main() -> None:
    """Serve until stopped."""
    _admin, address = start()
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
