"""Where ticks come from, and what they are handed to.

A feed hands over ticks in its own event loop. It does not know whether they are decided on in the
same process (`direct.Direct`) or published for a service that reads them from Kafka
(`Publisher`, then `kafka.consumer` and `service`).
"""

from collections.abc import Mapping
from typing import Protocol

from infra.live.kafka.producer import Outbox
from model_code.live.messages import Tick, encode


class Receiver(Protocol):
    """What a feed hands ticks to."""

    def take(self, tick: Tick, decode_ns: int = 0) -> None:
        """Take the next tick, in its order; return at once.

        Args:
            tick: the next one of its instrument.
            decode_ns: what reading its bytes took.
        """


class Feed(Protocol):
    """A source of ticks."""

    async def run(self, receiver: Receiver) -> None:
        """Hand over ticks until `stop`."""

    def stop(self) -> None:
        """End `run`."""


class Publisher:
    """A receiver that publishes to Kafka and never waits for it.

    Args:
        outbox: the producer. Call its `poll` often.
        topic: of ticks.
        keys: key of each instrument's group.

    Attributes:
        sent: ticks in the producer's queue or delivered.
        dropped: ticks that found it full. Their sequence numbers are missing, so that the
            service fills the window again.
    """

    def __init__(self, outbox: Outbox, topic: str, keys: Mapping[str, str]) -> None:
        self._outbox, self._topic = outbox, topic
        self._keys = {symbol: key.encode() for symbol, key in keys.items()}
        self.sent = self.dropped = 0

    def take(self, tick: Tick, decode_ns: int = 0) -> None:  # noqa: ARG002
        """Publish a tick."""
        if self._outbox.send(self._topic, self._keys[tick.symbol], encode(tick)):
            self.sent += 1
        else:
            self.dropped += 1
