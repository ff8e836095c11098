import threading

import numpy as np

from infra.servers import HOST, free_port
from model_code.serving.load import closed_loop, open_loop


def test_a_closed_loop_counts_every_response(url, x_NTF, expected):
    found = closed_loop(url, x_NTF, concurrency=8, requests=200, expected=expected)
    assert (found.requests, found.failed, found.wrong) == (200, 0, 0)
    assert found.versions == {2: 200}
    assert len(found.latency_ms_R) == 200
    assert (found.latency_ms_R > 0).all()
    assert found.percentile_ms(50) <= found.percentile_ms(99)
    np.testing.assert_allclose(found.throughput, 200 / found.seconds)


def test_wrong_responses_are_counted_by_the_responding_version(url, x_NTF, expected):
    off = {2: expected[2] + np.where(np.arange(len(x_NTF)) < 5, 1, 0)[:, None]}
    asked = closed_loop(url, x_NTF, concurrency=2, requests=len(x_NTF), expected=off)
    assert asked.wrong == 5
    other = closed_loop(url, x_NTF, concurrency=2, requests=10, expected={1: expected[1]})
    assert other.wrong == 10, "a response of an unexpected version is wrong"
    pinned = closed_loop(url, x_NTF, concurrency=2, requests=10, expected=expected, version=1)
    assert (pinned.wrong, pinned.versions) == (0, {1: 10})


def test_failures_are_counted_with_their_messages(x_NTF):
    found = closed_loop(f"{HOST}:{free_port()}", x_NTF, concurrency=2, requests=4, deadline_s=0.05)
    assert (found.requests, found.failed, len(found.latency_ms_R)) == (4, 4, 0)
    assert sum(found.errors.values()) == 4


def test_a_closed_loop_stops_on_the_event(url, x_NTF):
    stop = threading.Event()
    stop.set()
    assert closed_loop(url, x_NTF, concurrency=2, requests=10**6, stop=stop).requests == 0


def test_an_open_loop_sends_at_its_rate_and_counts_from_when_a_request_was_due(
    url, x_NTF, expected
):
    found = open_loop(url, x_NTF, rate_hz=100, seconds=0.5, expected=expected)
    assert (found.requests, found.failed, found.wrong) == (50, 0, 0)
    assert found.seconds >= 0.49
    # far above any server's capacity: queueing is part of the latency
    flooded = open_loop(url, x_NTF, rate_hz=100_000, seconds=0.005)
    assert flooded.requests == 500
    assert flooded.percentile_ms(99) > 1e3 * flooded.seconds / 2, "the last were due at 5 ms"
