"""Messages out, without ever blocking: a full queue is counted, and the caller tries again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from infra.live.kafka.clients import KafkaSpec, quiet
from model_code.errors import StreamError


class Outbox:
    """A producer. Call `poll` often: it reports what was delivered.

    Args:
        spec: of the broker.
        say: called with a line when the broker goes away.

    Attributes:
        full: attempts refused because the queue was full.
        delivered: messages that the broker has confirmed.
    """

    def __init__(self, spec: KafkaSpec, say: Callable[[str], None] = lambda _: None) -> None:
        config = {**spec.producer(), "error_cb": quiet(say), "log_level": 0}
        try:
            self._producer = Producer(config)
        except KafkaException as error:
            raise StreamError(
                f"no producer: {error.args[0].str()}", remedy="correct the Kafka settings"
            ) from error
        self._where = spec.bootstrap
        self._error: tuple[str, str] | None = None
        self._taken = self._failed = 0
        self.full = 0
        self.delivered = 0

    def __len__(self) -> int:
        """Messages that the broker has not confirmed."""
        return self._taken - self.delivered - self._failed

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: dict[str, bytes] | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> bool:
        """Hand a message to the producer's queue.

        Args:
            topic: to publish to.
            key: decides the partition; None: any.
            value: the message.
            headers: of the message.
            done: called by `poll` when the broker has confirmed it.

        Returns:
            False if the queue is full; the message was not taken.

        Raises:
            StreamError: the producer refuses it.
        """

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self.delivered += 1
                done()
            else:
                self._failed += 1
                self._error = self._error or (topic, error.str())

        try:
            self._producer.produce(
                topic, value, key, headers=list((headers or {}).items()), on_delivery=delivered
            )
        except BufferError:
            self.full += 1
            return False
        except KafkaException as error:
            raise self._refusal(topic, error.args[0].str()) from error
        self._taken += 1
        return True

    def poll(self) -> None:
        """Call back for what was delivered since.

        Raises:
            StreamError: a message could not be delivered, or the producer cannot go on, for example
                because the broker has forgotten it.
        """
        with self._refusals():
            self._producer.poll(0)
        if self._error is not None:
            raise self._refusal(*self._error)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is confirmed; False if it was not in time.

        Raises:
            StreamError: as `poll`.
        """
        with self._refusals():
            self._producer.flush(timeout_s)
        self.poll()
        return not len(self)

    def close(self) -> None:
        """Drop what was not delivered."""
        self._producer.purge()
        self._producer.poll(0)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise self._refusal("the broker", error.args[0].str()) from error

    def _refusal(self, topic: str, what: str) -> StreamError:
        return StreamError(
            f"not delivered to {topic}: {what}",
            where=self._where,
            remedy="check the broker and the topic, then start again: nothing is lost, "
            "positions are stored only after delivery",
        )
