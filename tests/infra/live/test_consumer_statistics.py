"""What the consumer reads of the client's statistics."""

import json
from typing import Any

import pytest

from infra.live.kafka.clients import KafkaSpec, Partition
from infra.live.kafka.consumer import Inbox


def statistics(state: str = "UP", **partition: Any) -> str:
    lag = {"consumer_lag": 7, "fetch_state": "active", "txmsgs": 3} | partition
    return json.dumps(
        {
            "topics": {"ticks": {"partitions": {"0": lag, "-1": {"fetch_state": "none"}}}},
            "brokers": {
                "kafka:9092/1": {"nodeid": 1, "state": state},
                "GroupCoordinator": {"nodeid": -1, "state": "INIT"},
            },
        }
    )


@pytest.fixture
def inbox() -> Inbox:
    handler: Any = None
    return Inbox(KafkaSpec(bootstrap="127.0.0.1:1"), handler, lambda _: None)


def test_before_the_first_statistics_nothing_is_known(inbox: Inbox) -> None:
    assert inbox.lag == {}
    assert inbox.broker_error is None


def test_lag_of_the_partitions_that_are_read(inbox: Inbox) -> None:
    inbox._read_statistics(statistics())
    assert inbox.lag == {Partition("ticks", 0): 7}
    inbox._read_statistics(statistics(fetch_state="stopping"))
    assert inbox.lag == {}


def test_a_broker_that_went_away_and_returned(inbox: Inbox) -> None:
    errors = []
    for state in ("UP", "TRY_CONNECT", "UP"):
        inbox._read_statistics(statistics(state))
        errors.append(inbox.broker_error)
    assert errors == ["", "no broker can be reached", ""]
