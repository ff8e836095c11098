"""The benchmark row of the server under load."""

from pathlib import Path

import numpy as np
import pytest

from infra.triton import benchmark_row
from infra.triton.benchmark_row import NOT_INSTALLED, _load, unservable
from model_code.errors import ServingError
from model_code.serving.load import LoadResult
from model_code.settings import Settings


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


def test_what_the_installed_server_cannot_load_is_known_without_starting_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path).resolved()
    monkeypatch.setattr(benchmark_row, "installed", lambda _: False)
    assert unservable(settings, "openvino-fp32") == NOT_INSTALLED
    monkeypatch.setattr(benchmark_row, "installed", lambda _: True)
    assert unservable(settings, "openvino-fp32") is None
    reason = unservable(settings, "tensorrt-fp16")
    assert reason is not None
    assert reason.startswith("failed: load: the installed server (Triton")
    assert reason.endswith("has no tensorrt backend for tensorrt-fp16")
