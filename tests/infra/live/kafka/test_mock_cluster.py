"""The broker of measurements, as a process of its own."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from infra.live.kafka import mock_cluster
from infra.live.kafka.clients import KafkaSpec
from infra.live.kafka.producer import Outbox
from model_code.errors import StreamError
from tests.support.broker import read_all

MESSAGES = 100


@pytest.fixture
def bootstrap() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", mock_cluster.__name__], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM
    process.stdout.close()


def test_it_keeps_what_it_is_sent(bootstrap: str) -> None:
    spec = KafkaSpec(bootstrap=bootstrap, partitions=4)
    mock_cluster.create_topics(bootstrap, [spec.ticks[0], spec.decisions])
    outbox = Outbox(spec)
    for number in range(MESSAGES):
        assert outbox.send(spec.ticks[0], b"%d" % (number % 3), b"%d" % number)
    assert outbox.flush(10)
    found = read_all(spec, spec.ticks[0], MESSAGES)
    assert sorted(int(one.value() or b"") for one in found) == list(range(MESSAGES))


def test_a_broker_that_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mock_cluster, "REQUEST_S", 0.2)
    with pytest.raises(StreamError, match="no topics"):
        mock_cluster.create_topics("127.0.0.1:9", ["ticks"])
