"""Messages out."""

import time

import pytest
from confluent_kafka import KafkaError, KafkaException

from infra.live.kafka.clients import KafkaSpec, create_topics
from infra.live.kafka.producer import Outbox
from infra.servers import free_port
from model_code.errors import StreamError
from tests.support.broker import headers, kafka_spec, read_all


def away() -> str:
    return f"127.0.0.1:{free_port()}"


def test_messages_of_a_key_arrive_in_order_with_their_headers(broker: str) -> None:
    spec = kafka_spec(broker)
    create_topics(spec, spec.ticks)
    outbox, confirmed = Outbox(spec), []
    for number in range(50):
        value = str(number).encode()
        done = lambda number=number: confirmed.append(number)  # noqa: E731
        assert outbox.send(spec.ticks[0], b"A", value, {"error": b"none"}, done)
    assert outbox.flush(10)
    assert confirmed == list(range(50))
    assert (outbox.delivered, outbox.full, len(outbox)) == (50, 0, 0)
    found = read_all(spec, spec.ticks[0], 50)
    assert [int(one.value() or b"") for one in found] == list(range(50))
    assert headers(found[0]) == {"error": b"none"}
    assert {one.key() for one in found} == {b"A"}


def test_a_full_queue_is_counted_and_does_not_block() -> None:
    outbox = Outbox(kafka_spec(away(), client={"queue.buffering.max.messages": "2"}))
    assert [outbox.send("t", None, b"x") for _ in range(4)] == [True, True, False, False]
    assert (outbox.full, len(outbox)) == (2, 2)
    assert not outbox.flush(0.01)
    outbox.close()


def test_what_is_not_delivered_in_time_is_an_error() -> None:
    outbox = Outbox(kafka_spec(away(), delivery_timeout_ms=50))
    called: list[bool] = []
    outbox.send("ticks", None, b"x", done=lambda: called.append(True))
    with pytest.raises(StreamError, match="not delivered to ticks") as error:
        while True:
            outbox.poll()
            time.sleep(0.01)
    assert "nothing is lost" in error.value.remedy
    assert called == []


def test_a_wrong_setting_is_an_error() -> None:
    with pytest.raises(StreamError, match="no producer"):
        Outbox(kafka_spec("127.0.0.1:1", client={"no.such.setting": "1"}))


def test_a_producer_that_cannot_go_on_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgotten:
        def poll(self, _: float) -> int:
            raise KafkaException(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER))

        flush = poll

    outbox = Outbox(KafkaSpec(bootstrap="127.0.0.1:9"))
    monkeypatch.setattr(outbox, "_producer", Forgotten())
    for call in (outbox.poll, lambda: outbox.flush(1)):
        with pytest.raises(StreamError, match="not delivered to the broker") as error:
            call()
        assert "start again" in error.value.remedy
