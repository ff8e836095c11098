"""A night of two models: both trained, compared in one table, one of them built and judged."""

import warnings
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

from flows.cli.tables import outcome_tables
from model_code.errors import EngineError
from model_code.settings import AttributionSpec, MlpSpec, ModelSpec, Settings, TrainingSpec
from tests.support.flow import children, nightly_outcome, paths, tiny

MARKET = "simulated:?seed=3&instruments=2&days=2&minutes=2"
MLP = ModelSpec(
    name="mlp",
    network=MlpSpec(hidden=16, layers=1),
    training=TrainingSpec(epochs=1, windows_per_epoch=512, batch_size=32),
)
GOALS = "goals:\n  - {name: finite, metric: non_finite, kind: threshold, maximum: 0}\n"


def test_both_are_compared_and_the_chosen_one_is_registered(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("the attributions do not add up")

    monkeypatch.setattr("tasks.nightly.attribute.measure", refuse)
    goals = tmp_path / "goals.yaml"
    goals.write_text(GOALS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of itself on import
        explained = AttributionSpec(windows=4)
        spec = tiny(MARKET, other_models=(MLP,), goals=str(goals), attributions=explained)
        outcome = nightly_outcome(spec)
    found = outcome.models
    assert found is not None
    assert [row.name for row in found.rows] == ["design", "mlp"]
    assert found.chosen == outcome.model
    assert found.windows == outcome.benchmark.windows
    chosen = next(row for row in found.rows if row.name == found.chosen)
    reference = outcome.benchmark.row("torch-fp32")
    assert reference is not None
    assert reference.quality.auc is not None
    assert abs(reference.quality.auc - chosen.auc) < 1e-3  # the same model on the same windows
    beside = [row.engine for row in outcome.benchmark.beside]
    assert beside[:1] == ([] if outcome.model == "design" else ["design torch-fp32"])

    mlflow = MlflowClient(home.tracking_uri)
    assert paths(mlflow, outcome.mlflow_run_id, "models") == {
        "models/frontier.png", "models/models.json", "models/models.md",
    }  # fmt: skip
    run = mlflow.get_run(outcome.mlflow_run_id)  # attributions that fail cost nothing else
    assert run.info.status == "FINISHED"
    assert "not computed (the attributions do not add up)" in run.data.tags["mlflow.note.content"]
    nested = children(home, outcome.mlflow_run_id)
    for name, row in zip(("training", "training mlp"), found.rows, strict=True):
        assert nested[name].data.metrics["quality/auc"] == row.auc

    console = Console(width=80, record=True)
    console.print(outcome_tables(outcome))
    text = console.export_text()
    assert "Models on 256 test windows" in text
    assert f"Engines of {outcome.model} on 256 windows" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
