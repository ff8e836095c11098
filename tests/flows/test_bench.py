"""The benchmark flow on a simulated market, against the real servers."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console
from typer.testing import CliRunner

from flows.bench import EXPERIMENT, Bench, bench
from flows.cli import tables
from flows.cli.__main__ import app
from flows.runs import local
from model_code.benchmark import gate
from model_code.benchmark.result import BenchmarkRun
from model_code.benchmark.verdict import Verdict
from model_code.settings import ENGINE_NAMES, NightlySpec, Settings
from tasks.runs import mlflow_runs
from tests.support.flow import QUICK_BENCHMARK, tiny

SIMULATED = "simulated:?seed=3&instruments=1&days=2&minutes=2"


@pytest.fixture
def found(home: Settings) -> tuple[Bench, ...]:
    from infra.triton.install import install

    install(home)
    served = QUICK_BENCHMARK.model_copy(update={"served": True})
    return bench(tiny(SIMULATED, benchmark=served), repeat=2)


def test_a_benchmark_is_measured_again_each_time_in_its_own_experiment(
    found: tuple[Bench, ...], home: Settings
) -> None:
    first, second = (BenchmarkRun.load(Path(done.folder)) for done in found)
    assert (first.latency_ms_R["torch-fp32"] != second.latency_ms_R["torch-fp32"]).any()
    assert (first.probability_N["torch-fp32"] == second.probability_N["torch-fp32"]).all()

    result = second.result
    assert {"torch-fp32", "onnxruntime-fp32", "openvino-fp32", "triton-grpc"} <= {
        row.engine for row in result.rows
    }
    assert "NVIDIA" in result.unavailable["tensorrt-fp16"]
    served = result.row("triton-grpc")
    assert served is not None
    assert served.quality.flips == 0
    assert result.served is not None
    assert result.served.engine in served.facts.note
    assert [row.failed for row in result.served.loads] == [0, 0, 0]
    assert result.served.compute_ms > 0

    mlflow = MlflowClient(home.tracking_uri)
    settings = home.model_copy(update={"mlflow_experiment": EXPERIMENT})
    runs = mlflow.search_runs([mlflow_runs.experiment_id(mlflow, settings)])
    names = {run.info.run_name for run in runs}
    assert {"engine torch-fp32", "engine triton-grpc"} <= names
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    kept = {entry.path for entry in mlflow.list_artifacts(parent.info.run_id, "benchmark-2")}
    assert {"benchmark-2/benchmark.html", "benchmark-2/latencies.parquet"} <= kept
    page = mlflow.download_artifacts(parent.info.run_id, "benchmark-2/benchmark.html")
    assert found[1].judged.engine in Path(page).read_text().partition("<h2")[0]
    judged = mlflow.download_artifacts(parent.info.run_id, "gate-2/verdict.json")
    assert Verdict.model_validate_json(Path(judged).read_bytes()).rows

    console = Console(width=200, record=True)
    parts = list(tables.bench_tables(found))
    for part in parts:
        console.print(part)
    text = console.export_text()
    assert "Through Triton" in text
    assert re.fullmatch(r"same ranking [12]/2, same verdict [12]/2", str(parts[-1]))
    assert "Verdicts" in text
    assert ("Why the faster engines were not chosen" in text) is found[1].judged.selection.accepted
    assert result.simulated
    assert "SIMULATED MARKET" in text
    alone = list(tables.bench_tables(found[1:]))[-1]
    assert re.fullmatch(
        r"chosen \S+: \d+\.\dx torch-fp32 at batch 1, \d+% of the arithmetic floor", str(alone)
    )


def measured(order: str, chosen: str, **words: str) -> SimpleNamespace:
    """A fake measurement with what repeats read; its run is its places."""
    judged = SimpleNamespace(
        engine=chosen, verdicts=words, verdict=SimpleNamespace(verdict=words[chosen])
    )
    places = tuple(tuple(place.split("=")) for place in order.split())
    return SimpleNamespace(judged=judged, run=places)


def test_repeats_report_agreement_and_changed_verdicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "places", lambda run: run)
    found = (
        measured("a b=c", "a", a="pass", b="pass"),
        measured("a c b", "a", a="pass", b="fail"),
        measured("b a c", "b", a="pass", b="fail"),
    )
    *_, third, changed, places, last = tables.repeated(found)  # type: ignore[arg-type]
    assert third == "measurement 3: chose b (fail); b < a < c"
    assert changed == "verdicts that changed: b pass 1, fail 2"
    assert places == "first place a 2/3, last place b 2/3, chosen a 2/3"  # b once beside c
    assert last == "same ranking 1/3, same verdict 2/3"
    *_, changed, _, last = tables.repeated(found[:1] * 5)  # type: ignore[arg-type]
    assert changed == "verdicts that changed: none"
    assert last == "same ranking 5/5, same verdict 5/5"


@pytest.mark.parametrize(
    ("file", "options", "engines"),
    [
        ("", (), ENGINE_NAMES),
        ("benchmark: {engines: [openvino-fp32]}", (), ("openvino-fp32",)),
        ("benchmark: {requests: 50}", (), ENGINE_NAMES),
        (
            "benchmark: {engines: [openvino-fp32]}",
            ("-e", "onnxruntime-fp32"),
            ("onnxruntime-fp32",),
        ),
    ],
)
def test_engines_of_a_spec_file_are_kept(
    file: str,
    options: tuple[str, ...],
    engines: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    asked: list[NightlySpec] = []
    monkeypatch.setattr(local, "run_bench", lambda spec, *_: asked.append(spec))
    monkeypatch.setattr(tables, "bench_tables", lambda _: [])
    path = tmp_path / "spec.yaml"
    path.write_text(file)
    given = ("--spec", str(path)) if file else ()
    CliRunner().invoke(app, ["bench", *given, *options], catch_exceptions=False)
    assert [spec.benchmark.engines for spec in asked] == [engines]


def test_help_mentions_side_by_side_and_repeat() -> None:
    text = CliRunner().invoke(app, ["bench", "--help"], env={"COLUMNS": "120"}).output
    assert "--repeat" in text
    assert "side by side" in text
