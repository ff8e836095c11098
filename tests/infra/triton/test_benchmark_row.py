"""The benchmark row of the server under load."""

import numpy as np
import pytest

from infra.triton.benchmark_row import _load
from model_code.errors import ServingError
from model_code.serving.load import LoadResult


def result(latency_ms: list[float], errors: dict[str, int]) -> LoadResult:
    return LoadResult(
        latency_ms_R=np.array(latency_ms),
        requests=len(latency_ms) + sum(errors.values()),
        failed=sum(errors.values()),
        wrong=0,
        seconds=2.0,
        versions={1: len(latency_ms)},
        errors=errors,
    )


def test_failed_requests_are_counted_with_the_answered_ones() -> None:
    row = _load("concurrency 8", result([1.0, 2.0, 3.0], {"deadline": 1}))
    assert (row.p50_ms, row.throughput, row.failed) == (2.0, 1.5, 1)


def test_a_server_that_answers_no_request_is_an_error() -> None:
    with pytest.raises(ServingError, match=r"none of 4 requests under concurrency 8: gone \(4\)"):
        _load("concurrency 8", result([], {"gone": 4}))
