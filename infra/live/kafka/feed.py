"""Recorded messages to a topic, by the key of their group."""

import time
from collections.abc import Callable, Iterable, Mapping

from infra.live.kafka.producer import Outbox
from model_code.live.messages import Tick, encode

FULL_S = 0.005
POLL_EVERY = 1000


def publish(
    outbox: Outbox,
    topic: str,
    ticks: Iterable[Tick],
    keys: Mapping[str, str],
    sent: Callable[[int], None] = lambda _: None,
) -> int:
    """Publish messages in their order; wait while the producer's queue is full.

    Args:
        outbox: the producer.
        topic: of ticks.
        ticks: the messages.
        keys: key of each instrument's group.
        sent: called now and then with the number of messages since the last call.

    Returns:
        The number of messages.

    Raises:
        StreamError: a message could not be delivered.
    """
    coded = {symbol: key.encode() for symbol, key in keys.items()}
    count = told = 0
    for tick in ticks:
        while not outbox.send(topic, coded[tick.symbol], encode(tick)):
            outbox.poll()
            time.sleep(FULL_S)
        count += 1
        if count % POLL_EVERY == 0:
            outbox.poll()
            sent(count - told)
            told = count
    sent(count - told)
    return count
