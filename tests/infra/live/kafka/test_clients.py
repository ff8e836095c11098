"""Settings of the clients, and topics."""

import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from pydantic import ValidationError

from infra.live.kafka import clients
from infra.live.kafka.clients import DEMO, KafkaSpec, create_topics, dead_letters, quiet
from infra.servers import free_port
from model_code.errors import StreamError
from tests.support.broker import kafka_spec


@pytest.mark.parametrize("spec", [KafkaSpec(), KafkaSpec(**DEMO)], ids=["kafka", "demo"])
def test_the_client_library_knows_every_setting(spec: KafkaSpec) -> None:
    Consumer({**spec.consumer(), "log_level": 0}).close()
    Producer({**spec.producer(), "log_level": 0})
    assert spec.consumer()["enable.auto.offset.store"] is False
    assert spec.heartbeat_ms * 3 <= spec.session_timeout_ms


def test_more_settings_of_the_client_are_passed_on() -> None:
    spec = KafkaSpec(client={"security.protocol": "ssl"})
    assert spec.consumer()["security.protocol"] == spec.producer()["security.protocol"] == "ssl"


@pytest.mark.parametrize("name", ["", "../up", "a b", "."])
def test_names_that_are_no_topics_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        KafkaSpec(decisions=name)
    with pytest.raises(ValidationError):
        KafkaSpec(group_id=name)


def test_only_missing_topics_are_created(broker: str) -> None:
    spec = kafka_spec(broker)
    wanted = [*spec.ticks, dead_letters(spec.ticks[0]), *spec.ticks]
    assert create_topics(spec, wanted) == wanted[:2]
    assert create_topics(spec, [*wanted, spec.decisions]) == [spec.decisions]
    assert create_topics(spec, wanted) == []


def test_a_broker_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "REQUEST_S", 0.2)
    spec = kafka_spec(f"127.0.0.1:{free_port()}")
    with pytest.raises(StreamError, match="no topics") as error:
        create_topics(spec, spec.ticks)
    assert error.value.where == spec.bootstrap


def test_the_same_trouble_is_said_once() -> None:
    lines: list[str] = []
    report = quiet(lines.append)
    for code in (KafkaError._ALL_BROKERS_DOWN, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
        report(KafkaError(code))
    assert len(lines) == 2
