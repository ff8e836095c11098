"""`tickline gate --replay` on stored runs."""

import dataclasses

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.cli import benchmark
from model_code.errors import ConfigError, GateError
from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tests.support.benchmark import benchmark_run

RANDOM = np.random.default_rng(0)
P = RANDOM.uniform(size=1000)
LABEL = (RANDOM.uniform(size=1000) < P).astype(np.int8)
GUESS = np.full(1000, 0.5)
RARE = np.where(np.arange(1000) < 990, 0, LABEL)
FAST = "goals:\n  - {name: fast, metric: p50_ms, kind: threshold, maximum: 1.5}\n"


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setattr(benchmark, "out", Console(width=300))  # no cell is wrapped


@pytest.fixture
def saved(tmp_path):
    medians = {"torch-fp32": 4.0, "onnxruntime-fp32": 2.0, "openvino-fp32": 1.0}
    latencies = {name: p50 * RANDOM.uniform(0.99, 1.01, 200) for name, p50 in medians.items()}

    def save(label_N=LABEL, boosting_N=GUESS):
        where = tmp_path / "benchmark"
        where.mkdir(exist_ok=True)
        answers = dict.fromkeys(medians, P)
        benchmark_run(label_N, answers, latencies, boosting_N=boosting_N).save(where)
        return where

    return save


@pytest.fixture
def folder(saved):
    return saved()


def gate(*arguments) -> str:
    done = CliRunner().invoke(benchmark.app, ["gate", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return " ".join(done.output.split())


def test_a_folder_is_judged_by_the_shipped_goals(folder):
    text = gate("--replay", folder)
    assert "every answer is finite" in text
    assert "openvino-fp32 is the fastest that did not fail (no baseline)" in text
    assert gate("--replay", folder.parent) == text


def test_the_smallest_visible_difference_is_said(folder):
    assert "difference from gradient boosting that could have been seen: 0.0" in gate(
        "--replay", folder
    )


def test_a_run_without_gradient_boosting_fails_and_says_what_to_do(saved):
    text = gate("--replay", saved(boosting_N=None))
    assert "missed: AUC no worse than gradient boosting" in text
    assert "gradient boosting's predictions are not in this run: measure again" in text
    assert "every engine failed" in text


def test_too_few_events_are_no_fail_and_no_pass(saved):
    text = gate("--replay", saved(label_N=RARE))
    positives = int(RARE.sum())
    assert f"{positives} positives and {1000 - positives} negatives" in text
    assert "no engine could be judged: too few events (too few events)" in text
    assert "FAIL" not in text


def test_other_goals_give_another_verdict(folder, tmp_path):
    goals = tmp_path / "goals.yaml"
    goals.write_text(FAST)
    text = gate("--replay", folder, "--goals", goals)
    assert "missed: fast" in text
    assert "FAIL" in gate("--replay", folder, "--goals", goals, "-e", "onnxruntime-fp32")
    assert "FAIL" not in gate("--replay", folder, "--goals", goals, "-e", "openvino-fp32")
    pinned = gate("--replay", folder, "--goals", goals, "--pin", "onnxruntime-fp32")
    assert "onnxruntime-fp32 is pinned and failed the gate (fail)" in pinned


def test_a_run_in_mlflow_is_found(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    settings = Settings().resolved()
    mlflow = mlflow_runs.client(settings)
    run_id = mlflow_runs.continue_or_start(
        mlflow,
        settings,
        name="amber-falcon",
        identity={"prefect.flow_run_id": "1"},
        tags={"tickline.simulated": "true"},
    )
    mlflow.log_artifacts(run_id, str(folder), "benchmark")
    for name in ("amber-falcon", run_id):
        assert "not promotable: simulated data" in gate("--replay", name)


def test_the_last_measurement_of_a_bench_run_is_judged(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    settings = Settings().resolved()
    mlflow = mlflow_runs.client(settings)
    run_id = mlflow_runs.continue_or_start(
        mlflow, settings, name="rugged-carp", identity={"prefect.flow_run_id": "2"}, tags={}
    )
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "benchmark.json").write_text("{}")
    for turn, kept in ((2, broken), (9, broken), (10, folder)):
        mlflow.log_artifacts(run_id, str(kept), f"benchmark-{turn}")
    # MLflow's progress bar comes first where it is shown
    assert gate("--replay", "rugged-carp").endswith(gate("--replay", folder))


def test_a_folder_records_that_its_market_was_simulated(tmp_path):
    latencies = {name: RANDOM.uniform(1, 2, 200) for name in ("torch-fp32", "openvino-fp32")}
    run = benchmark_run(LABEL, dict.fromkeys(latencies, P), latencies)
    made_up = run.result.model_copy(update={"simulated": True})
    dataclasses.replace(run, result=made_up).save(tmp_path)
    assert "not promotable: simulated data" in gate("--replay", tmp_path)
    run.save(tmp_path)
    assert "simulated" not in gate("--replay", tmp_path)


def test_what_is_not_a_benchmark_is_a_clear_error(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    with pytest.raises(ConfigError, match="no folder and no run"):
        gate("--replay", "absent")
    (folder / "benchmark.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot read a benchmark"):
        gate("--replay", folder)
    with pytest.raises(ConfigError, match="cannot read a benchmark"):
        gate("--replay", tmp_path / "home")


def test_wrong_goals_and_unknown_engines_are_clear_errors(folder, tmp_path):
    with pytest.raises(GateError, match="cannot be read"):
        gate("--replay", folder, "--goals", tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="tensorrt-fp16"):
        gate("--replay", folder, "-e", "tensorrt-fp16")
