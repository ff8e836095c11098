"""Complete small nightlies against a real Prefect server and a real MLflow store."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from flows.cli.tables import outcome_tables
from flows.nightly import nightly
from flows.runs.find import find_run
from flows.runs.outcome import Outcome
from flows.runs.rerun import rerun
from infra.leases import lease
from infra.leases.lease import LeaseLostError
from model_code.errors import DataError, GateError, MarketError
from model_code.export import graph
from model_code.repository.audit import account
from model_code.repository.triton_config import parse
from model_code.settings import MODEL_NAME, AttributionSpec, NightlySpec, Settings, TrainingSpec
from tasks.promotion.registered import require_registered
from tasks.runs import mlflow_runs
from tasks.runs.lifecycle import exclusive
from tasks.runs.lock import BusyError
from tasks.runs.stored import specification
from tests.support.benchmark import row_of
from tests.support.flow import (
    EASY,
    children,
    dataset_inputs,
    nightly_outcome,
    parents,
    paths,
    stage_states,
    tiny,
)
from tests.support.leases import revoke_leases
from tests.support.market import desk_csv
from tests.support.serving import serves

SIMULATED = "simulated:?seed=3&instruments=1&days=2&minutes=2"


@pytest.fixture
def easy(tmp_path: Path) -> str:
    """Goals that a network of two epochs can meet."""
    path = tmp_path / "goals.yaml"
    path.write_text(EASY)
    return str(path)


def prefect_artifacts(key: str) -> list[Any]:
    from prefect import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        )


def text(outcome: Outcome) -> str:
    from rich.console import Console

    console = Console(width=160, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    with console.file:
        console.print(outcome_tables(outcome))
        return console.export_text()


def test_simulated_nightly_through_every_stage_then_cached(home: Settings, easy: str) -> None:
    explained = AttributionSpec(windows=8, background=2)
    spec = tiny(SIMULATED, goals=easy, attributions=explained)
    first = nightly_outcome(spec)

    assert first.verdict.verdict == "no baseline"
    assert not first.verdict.promotable
    assert first.simulated
    table = first.benchmark
    assert {row.engine for row in table.rows} == {
        "torch-fp32", "onnxruntime-fp32", "openvino-fp32",
    }  # fmt: skip
    assert "tensorrt-fp16" in table.unavailable
    assert all(row.quality.flips == 0 for row in table.rows)
    assert first.engine in {"onnxruntime-fp32", "openvino-fp32"}
    shown = text(first)
    for piece in ("SIMULATED MARKET", "no baseline", "gradient boosting", "tickline ui"):
        assert piece in shown

    # one finished parent, linked both ways, with nested runs, datasets, plots and reports
    mlflow = MlflowClient(home.tracking_uri)
    (parent,) = parents(home)
    assert parent.info.run_id == first.mlflow_run_id
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["tickline.simulated"] == "true"
    assert parent.data.tags["tickline.verdict"] == "no baseline"
    assert first.flow_run_name == f"nightly {first.test_date}"
    assert parent.data.tags["prefect.flow_run_name"] == first.flow_run_name
    assert parent.info.run_name == first.flow_run_name
    assert parent.data.params["training.epochs"] == "2"
    auc = row_of(table, first.engine).quality.auc
    assert parent.data.metrics["quality/auc"] == pytest.approx(auc)
    assert "baseline/auc" in parent.data.metrics
    judged_on = spec.model_copy(update={"test_date": first.test_date})
    assert specification(home, first.flow_run_name) == judged_on
    contexts = [given.tags[0].value for given in dataset_inputs(parent)]
    assert sorted(contexts) == ["test", "training"]
    assert "validation/report.html" in paths(mlflow, first.mlflow_run_id, "validation")
    benchmark = paths(mlflow, first.mlflow_run_id, "benchmark")
    for plot in ("latency_ecdf", "roc", "precision_recall", "calibration"):
        assert any(path.endswith(f"{plot}.png") for path in benchmark)
    assert paths(mlflow, first.mlflow_run_id, "attribution") == {
        f"attribution/{name}" for name in ("attribution.md", "heat_map.png", "profile.json")
    }
    shares = [
        value for name, value in parent.data.metrics.items() if name.startswith("attribution/")
    ]
    assert len(shares) == 16
    assert sum(shares) == pytest.approx(1.0)
    assert parent.data.params["test_date"] == first.test_date == "2000-01-04"
    assert parent.data.params["train_dates"] == "2000-01-03"
    assert parent.data.params["instruments"] == "SIMA.sim"
    assert parent.data.params["features.label"] == "executable-roundtrip"
    assert parent.data.metrics["gate/goals_missed"] == 0
    assert parent.data.metrics["gate/goals_met"] >= 1
    groups = {name.partition("/")[0] for name in parent.data.metrics if "/" in name}
    assert {"quality", "baseline", "latency", "gate", "data", "fp32"} <= groups
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("**no baseline** on SIMULATED ticks, not promotable: ")
    assert f"AUC {auc:.4f}, gradient boosting {first.baseline['auc']:.4f}, p99 " in note
    assert "(./#/models/financial_predictor/versions/1?workflowType=machine_learning)" in note
    assert len(note) <= 1000
    assert "What the model looks at: " in note
    assert "no earlier profile to compare with" in note
    nested = children(home, first.mlflow_run_id)
    assert {"training", "baseline", "engine torch-fp32"} <= set(nested)
    assert {run.info.status for run in nested.values()} == {"FINISHED"}
    curve = mlflow.get_metric_history(nested["training"].info.run_id, "validation/auc")
    assert [point.step for point in curve] == [1, 2]
    assert set(nested["engine openvino-fp32"].data.metrics) == set(
        nested["engine torch-fp32"].data.metrics
    )

    # registered as a simulated challenger, staged under the registry's number
    version = mlflow.get_model_version_by_alias(MODEL_NAME, "challenger-simulated")
    assert version.tags["simulated"] == "true"
    assert version.tags["promotable"] == "false"
    assert version.run_id == first.mlflow_run_id
    described = str(version.description)
    assert described.startswith("**no baseline** on SIMULATED ticks")
    assert f"/runs/{first.mlflow_run_id}?workflowType=machine_learning)" in described
    assert first.staged is not None
    folder = Path(first.staged.path)
    assert folder == home.staging_repository / MODEL_NAME / str(version.version)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["simulated"] is True
    assert manifest["mlflow_run_id"] == first.mlflow_run_id
    # who ran the night cannot approve its version
    by = mlflow.get_run(first.mlflow_run_id).data.tags["tickline.started_by"]
    assert manifest["started_by"] == by == account()
    threshold = float(version.tags["threshold"])
    assert manifest["threshold"] == table.threshold == threshold
    assert float(nested["training"].data.params["threshold"]) == threshold
    own = table.own_thresholds["gradient boosting"]
    assert float(nested["baseline"].data.params["threshold"]) == own
    config = parse((folder / "config.pbtxt").read_text())
    assert config.name == MODEL_NAME
    require_registered(home, folder)  # as its promotion does

    # Prefect shows it too
    assert any("SIMULATED" in str(found.data) for found in prefect_artifacts("benchmark"))
    assert any(first.mlflow_run_id in str(found.data) for found in prefect_artifacts("mlflow-run"))

    # the same inputs again: every stage comes back cached, nothing is registered twice
    second = nightly_outcome(spec)
    states = stage_states(second.flow_run_id)
    looked = {"find days", "find champion"}
    fresh = {name for name, state in states.items() if state != "Cached"}
    assert fresh == looked
    assert second.staged == first.staged
    moved = mlflow.get_run(second.mlflow_run_id).data
    assert moved.metrics["attribution_drift"] == 0.0
    assert (
        f"moved between features since the night {first.flow_run_name}"
        in moved.tags["mlflow.note.content"]
    )
    (kept,) = mlflow.search_model_versions(f"name = '{MODEL_NAME}'")
    assert (kept.run_id, kept.description) == (first.mlflow_run_id, described)
    assert [run.info.status for run in parents(home)] == ["FINISHED", "FINISHED"]


def test_champion_is_compared_on_the_same_windows(home: Settings, easy: str) -> None:
    first = nightly_outcome(tiny(SIMULATED, goals=easy))
    assert first.registered is not None
    serves(home, first.registered.version)

    same = nightly_outcome(tiny(SIMULATED, goals=easy))
    row = next(row for row in same.verdict.rows if row.kind == "min-improvement")
    assert same.verdict.verdict == "pass"
    assert row.reference == pytest.approx(row.value, abs=1e-4)

    worse = nightly_outcome(
        tiny(SIMULATED, goals=easy, training=TrainingSpec(epochs=1, learning_rate=1e-9))
    )
    assert worse.verdict.verdict == "fail"
    assert worse.registered is None
    assert worse.staged is None
    assert "not registered, not staged" in text(worse)

    # as short a training, from the champion's weights: still the champion
    still = TrainingSpec(epochs=1, batch_size=32, learning_rate=1e-9, start="champion")
    tuned = nightly_outcome(tiny(SIMULATED, goals=easy, training=still))
    row = next(row for row in tuned.verdict.rows if row.kind == "min-improvement")
    assert tuned.verdict.verdict == "pass"
    assert row.value == pytest.approx(row.reference, abs=1e-4)


def test_desk_csv_runs_through_the_same_flow(home: Settings, tmp_path: Path, easy: str) -> None:
    desk_csv(tmp_path / "desk")
    outcome = nightly_outcome(tiny(str(tmp_path / "desk"), goals=easy))
    assert outcome.verdict.verdict == "no baseline"
    assert outcome.verdict.promotable
    assert not outcome.simulated
    version = MlflowClient(home.tracking_uri).get_model_version_by_alias(MODEL_NAME, "challenger")
    assert version.tags["simulated"] == "false"


def test_a_failed_day_stops_the_nightly_and_keeps_the_report(
    home: Settings, tmp_path: Path, easy: str
) -> None:
    desk_csv(tmp_path / "desk")
    path = sorted((tmp_path / "desk").rglob("*.csv"))[0]
    lines = path.read_text().splitlines()
    for number in range(1, len(lines), 5):  # every fifth quote crossed
        cells = lines[number].split(",")
        cells[1], cells[2] = cells[2], cells[1]
        lines[number] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="failed validation: fault_fraction") as caught:
        nightly(tiny(str(tmp_path / "desk"), goals=easy))
    assert "crossed" in str(caught.value)
    assert "quarantine.parquet" in caught.value.where
    (parent,) = parents(home)
    assert parent.info.status == "FAILED"
    assert "failed validation" in parent.data.tags["tickline.error"]
    mlflow = MlflowClient(home.tracking_uri)
    assert "validation/report.html" in paths(mlflow, parent.info.run_id, "validation")
    assert {run.info.status for run in children(home, parent.info.run_id).values()} <= {"FAILED"}


def test_rerun_resumes_at_the_failed_stage_in_the_same_runs(
    home: Settings, easy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("the exporter fell over")

    with monkeypatch.context() as broken:
        broken.setattr(graph, "export_onnx", refuse)
        with pytest.raises(OSError, match="fell over"):
            nightly(tiny(SIMULATED, goals=easy))
    (parent,) = parents(home)
    assert parent.info.status == "FAILED"

    outcome = rerun(home, None, say=print)
    assert isinstance(outcome, Outcome)
    assert outcome is not None
    assert outcome.mlflow_run_id == parent.info.run_id
    assert [run.info.status for run in parents(home)] == ["FINISHED"]
    assert "tickline.error" not in parents(home)[0].data.tags
    states = stage_states(outcome.flow_run_id)
    cached = {name for name, state in states.items() if state == "Cached"}
    assert {"feature table", "split", "train", "baseline"} <= cached


def test_a_worker_resumes_a_refreshing_nightly_instead_of_starting_over(
    home: Settings, easy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("the exporter fell over")

    spec = tiny(SIMULATED, goals=easy)
    nightly(spec)  # leaves an older result of every stage
    with monkeypatch.context() as broken:
        broken.setattr(graph, "export_onnx", refuse)
        with pytest.raises(OSError, match="fell over"):
            nightly(spec, refresh=True)
    with get_client(sync_client=True) as client:
        run = find_run(None)
        client.set_flow_run_state(run.id, Scheduled(), force=True)
        run = client.read_flow_run(run.id)
    run_flow(nightly, flow_run=run, parameters={"spec": spec, "refresh": True})  # as a worker would
    states = stage_states(str(run.id))
    cached = {name for name, state in states.items() if state == "Cached"}
    assert {"feature table", "split", "train", "baseline"} <= cached
    assert not {"export", "benchmark", "gate"} & cached  # it had not reached these


def test_goals_are_read_before_any_computation(home: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("goals: []\n")
    with pytest.raises(GateError, match="there are no goals"):
        nightly(tiny(SIMULATED, goals=str(tmp_path / "empty.yaml")))
    assert not (home.home / "artifacts").exists()


def test_unknown_instrument_and_unreadable_market(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(MarketError, match="instruments not in the store"):
        nightly(tiny(SIMULATED, instruments=("NONE.sim",)))
    with pytest.raises(MarketError, match="cannot open the market store"):
        nightly(tiny(str(tmp_path / "nowhere")))


def test_a_second_nightly_at_once_is_refused(home: Settings, easy: str) -> None:
    with exclusive(home), pytest.raises(BusyError, match="another nightly is running"):
        nightly(tiny(SIMULATED, goals=easy))


def test_a_nightly_that_loses_its_lease_stops_before_its_next_write(
    home: Settings, easy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TICKLINE_STORE", f"file://{tmp_path / 'store'}")
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    epochs = []
    log_metrics = mlflow_runs.log_metrics

    def after_the_first_epoch(*arguments: Any, **options: Any) -> None:
        log_metrics(*arguments, **options)
        if "train_loss" in arguments[2]:
            epochs.append(arguments[2])
            revoke_leases()

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_runs, "log_metrics", after_the_first_epoch)
        with pytest.raises(LeaseLostError, match="the Prefect server has ended it"):
            nightly(tiny(SIMULATED, goals=easy))
    assert len(epochs) == 1
    assert MlflowClient(home.tracking_uri).search_model_versions() == []
    (run,) = parents(home)
    assert run.info.status == "RUNNING", "another host may have resumed it"
    again = nightly_outcome(tiny(SIMULATED, goals=easy))
    assert again.staged is not None


def test_market_comes_from_the_environment(
    home: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TICKLINE_MARKET", str(tmp_path / "from-environment"))
    with pytest.raises(MarketError) as caught:
        nightly(NightlySpec())
    assert "from-environment" in caught.value.where


@pytest.mark.slow
def test_real_ticks_train_on_the_first_day_and_test_on_the_second(
    home: Settings, binance: str, easy: str
) -> None:
    outcome = nightly_outcome(
        tiny(binance, goals=easy, instruments=("BTCUSDT.spot", "ETHUSDT.spot"))
    )
    assert outcome.test_date == str(dt.date(2024, 8, 9))
    assert str(outcome.windows["train"]["last"]).startswith("2024-08-08")
    assert not outcome.simulated
    assert outcome.baseline["auc"] > 0.6
