"""The search on planted figures, and once on the real server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.runs.tune_serving import MOST_FINALISTS, Load, finalists, tune_serving
from model_code.errors import ConfigError
from model_code.repository.config_search import DESIGN, Round, Row
from model_code.settings import ServingSpec, Settings
from tests.support.serving import staged

LOAD = Load(rate_hz=200.0, goal_ms=10.0, seconds=0.5, rounds=2)


class Planted:
    """A server on which two instances are fastest and 500 us of delay are cheapest."""

    def __init__(self) -> None:
        self.measured: list[ServingSpec] = []
        self.applied: list[ServingSpec] = []

    def measure(self, serving: ServingSpec, *_: object) -> Round:
        self.measured.append(serving)
        p99_ms = 4.0 / serving.instances + serving.queue_delay_us / 1e3
        return Round(p99_ms / 2, p99_ms, 300.0 * serving.instances - serving.queue_delay_us / 10)

    def apply(self, serving: ServingSpec) -> None:
        self.applied.append(serving)

    def perf_analyzer_ms(self, *_: object) -> tuple[float, float]:
        return 1.0, 2.0


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    bench = Planted()

    @contextmanager
    def server(*_: Any) -> Iterator[Planted]:
        yield bench

    monkeypatch.setattr("infra.triton.tuning.tuning_bench", server)
    return bench


def test_each_setting_once_then_the_finalists_in_turns(tmp_path: Path, planted: Planted) -> None:
    settings = Settings(home=tmp_path / "home").resolved()
    staged(settings.staging_repository, 1)
    said: list[str] = []
    found = tune_serving(settings, None, None, LOAD, said.append)
    assert (found.version, found.engine) == (1, "onnxruntime-fp32")
    count = len(found.screened)
    assert len(planted.measured) == len(said) == count + 2 * len(found.finalists)
    first = planted.measured[count : count + len(found.finalists)]
    assert first[0] == DESIGN
    assert planted.measured[count + len(found.finalists) :] == first, "in turns"
    assert found.choice.row is not None
    assert found.choice.row.serving.queue_delay_us == 500
    assert planted.applied == [found.choice.row.serving]
    assert found.perf_analyzer_ms == (1.0, 2.0)


def test_the_design_is_a_finalist_even_if_others_beat_it() -> None:
    rows = [Row(DESIGN, (Round(9.0, 9.0, 900.0),))]
    rows += [
        Row(ServingSpec(queue_delay_us=n), (Round(1.0, 1.0 + n, 100.0 - n),)) for n in range(8)
    ]
    found = finalists(rows)
    assert found[0] == DESIGN
    assert len(found) == MOST_FINALISTS
    assert [one.queue_delay_us for one in found[1:]] == [0, 7, 6, 5]


def test_without_a_version_nothing_starts(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home").resolved()
    with pytest.raises(ConfigError, match="no model version"):
        tune_serving(settings, None, None, LOAD, print)
