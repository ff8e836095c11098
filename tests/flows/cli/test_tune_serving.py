"""`tickline tune-serving`: the table, the choice, the file, the exit status."""

from pathlib import Path

import pytest
import yaml

from flows.cli import tune_serving
from flows.cli.options import read_spec
from flows.runs.tune_serving import TunedServing
from model_code.repository.config_search import DESIGN, Round, Row, choose
from model_code.settings import NightlySpec, ServingSpec
from tests.support.cli import tickline

LONG = ServingSpec(instances=2, queue_delay_us=500, preferred_batch_sizes=(), threads=1)
ROWS = (
    Row(DESIGN, (Round(1.0, 2.0, 300.0), Round(1.1, 2.2, 310.0))),
    Row(LONG, (Round(1.5, 3.0, 200.0), Round(1.6, 3.2, 210.0))),
)


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tune_serving.out, "width", 80)

    def found(_: object, version: int | None, run: str | None, load: object, say: object) -> object:
        goal_ms = load.goal_ms  # type: ignore[attr-defined]
        return TunedServing(3, "onnxruntime-fp32", ROWS, ROWS, choose(ROWS, goal_ms), (1.2, 3.4))

    monkeypatch.setattr("flows.runs.tune_serving.tune_serving", found)


def test_the_chosen_row_is_marked_and_fits_the_terminal() -> None:
    printed = tickline("tune-serving")
    assert "Version 3, onnxruntime-fp32, 200 requests/s" in printed
    assert "1 engine's 100 8/16/32 1.05 2.10 305 design, frontier" in printed
    assert "2 1 500 none 1.55 3.10 205 chosen, frontier" in printed
    assert "perf_analyzer, the chosen setting: p50 1.20, p99 3.40 ms" in printed
    assert "chosen: instances 2, threads 1, queue delay 500 us, preferred batches none" in printed


def test_the_file_is_a_specification_of_a_nightly(tmp_path: Path) -> None:
    path = tmp_path / "serving.yaml"
    printed = tickline("tune-serving", "--save", str(path))
    assert f"tickline nightly --spec {path}" in printed
    assert read_spec(NightlySpec, path, {}).serving == LONG
    assert set(yaml.safe_load(path.read_text())) == {"serving"}


def test_a_goal_that_none_meets_is_exit_status_1(tmp_path: Path) -> None:
    path = tmp_path / "serving.yaml"
    printed = tickline("tune-serving", "--p99", "1", "--save", str(path), status=1)
    assert "chosen: none; no setting has a p99 within 1 ms" in printed
    assert not path.exists()
