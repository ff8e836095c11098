"""What the evidence page says has changed since the champion."""

from pathlib import Path

import pytest

from model_code.settings import MODEL_NAME, NetworkSpec, NightlySpec, Settings, TrainingSpec
from model_code.settings.changes import changed, to_yaml
from tasks.promotion.changes import UNKNOWN, changes_since
from tasks.promotion.evidence import gather, render, summary
from tasks.runs import mlflow_runs
from tasks.runs.tick_source import TickSource
from tests.support.attribution import profile
from tests.support.promotion import registered

SPEC = NightlySpec(
    market="/ticks", network=NetworkSpec(), training=TrainingSpec(learning_rate=5e-4)
)
NIGHTS = {
    1: (SPEC, "a" * 40, ("2000-01-03",), "1"),
    2: (
        changed(SPEC, {"training.learning_rate": 1e-4, "network.KIND": "mlp"}),
        "b" * 40 + "-dirty",
        ("2000-01-03", "2000-01-04"),
        "2",
    ),
}


@pytest.fixture
def settings(tmp_path: Path, mlflow_template: Path) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    return Settings(home=home).resolved()


def night(settings: Settings, version: int, like: int | None = None) -> str:
    """Register a version; log the facts of a night unless `like` is None; return its run."""
    registered(settings, version)
    mlflow = mlflow_runs.client(settings)
    run_id = str(mlflow.get_model_version(MODEL_NAME, str(version)).run_id)
    if like is not None:
        spec, commit, dates, features = NIGHTS[like]
        mlflow.log_text(run_id, to_yaml(spec), mlflow_runs.SPEC_FILE)
        tags = {mlflow_runs.COMMIT_TAG: commit, mlflow_runs.FEATURES_TAG: features}
        mlflow_runs.set_tags(mlflow, run_id, tags)
        source = TickSource("/ticks", ())
        fed = [(date, "training") for date in dates] + [("2000-01-05", "test")]
        entries = [
            mlflow_runs.DatasetEntry(f"A/B/{date}", date * 7, source, context, {"rows": 1})
            for date, context in fed
        ]
        mlflow_runs.log_datasets(mlflow, run_id, entries)
    return run_id


def test_specification_code_days_and_features_that_differ(
    settings: Settings, tmp_path: Path
) -> None:
    night(settings, 1, like=1)
    run_id = night(settings, 2, like=2)
    mlflow = mlflow_runs.client(settings)
    found = {change.name: (change.old, change.new) for change in changes_since(mlflow, run_id, 1)}
    assert found["training.learning_rate"] == ("0.0005", "0.0001")
    assert found["network.KIND"] == ("conv-transformer", "mlp")
    assert found["network.d_model"] == ("64", "null")
    assert found["code commit"] == ("a" * 12, "b" * 12 + "-dirty")
    assert found["training days"] == (
        "2000-01-03, 1 instrument",
        "2 days, 2000-01-03 to 2000-01-04, 1 instrument",
    )
    assert found["features version"] == ("1", "2")
    assert not {"market", "training.epochs", "test day", "specification"} & set(found)

    candidate = settings.staging_repository / MODEL_NAME / "2"
    page = render(gather(mlflow, candidate, "onnxruntime-fp32", 1, {}, tmp_path))
    assert "Changed since the champion" in page
    assert (
        '<th scope="row">training.learning_rate</th>'
        "<td><code>0.0005</code></td><td><code>0.0001</code></td>" in page
    )


def test_equal_nights_and_a_first_version(settings: Settings, tmp_path: Path) -> None:
    night(settings, 1, like=1)
    run_id = night(settings, 2, like=1)
    mlflow = mlflow_runs.client(settings)
    assert changes_since(mlflow, run_id, 1) == ()
    candidate = settings.staging_repository / MODEL_NAME / "2"
    page = render(gather(mlflow, candidate, "onnxruntime-fp32", 1, {}, tmp_path))
    assert "Specification, code and days are the same." in page
    first = render(gather(mlflow, candidate, "onnxruntime-fp32", None, {}, tmp_path))
    assert "Changed since the champion" not in first


def test_what_a_night_did_not_record_is_said(settings: Settings) -> None:
    night(settings, 1)
    run_id = night(settings, 2, like=2)
    mlflow = mlflow_runs.client(settings)
    expected = {
        "specification": (UNKNOWN, "recorded"),
        "code commit": (UNKNOWN, "b" * 12 + "-dirty"),
        "training days": (UNKNOWN, "2 days, 2000-01-03 to 2000-01-04, 1 instrument"),
        "test day": (UNKNOWN, "2000-01-05, 1 instrument"),
        "features version": (UNKNOWN, "2"),
    }
    for champion in (1, 99):  # the registry does not know the second
        found = changes_since(mlflow, run_id, champion)
        assert {change.name: (change.old, change.new) for change in found} == expected


def test_a_deleted_night_is_not_recorded(settings: Settings) -> None:
    night(settings, 1, like=1)
    mlflow = mlflow_runs.client(settings)
    found = changes_since(mlflow, "0" * 32, 1)
    assert [change.new for change in found] == [UNKNOWN] * 5


def test_what_the_model_looks_at_and_how_that_moved(settings: Settings, tmp_path: Path) -> None:
    runs = [night(settings, version, like=1) for version in (1, 2)]
    mlflow = mlflow_runs.client(settings)
    candidate = settings.staging_repository / MODEL_NAME / "2"

    def pages() -> tuple[str, str]:
        found = gather(mlflow, candidate, "onnxruntime-fp32", 1, {}, tmp_path)
        return render(found), summary(found, "http://127.0.0.1")

    page, form = pages()
    assert "<h2>What the model looks at</h2>\n<p>Not recorded.</p>" in page
    assert "looks most at" not in form

    new = profile(noise=None, spread=3, time_gap=1)
    mlflow.log_text(runs[1], new.model_dump_json(), "attribution/profile.json")
    page, form = pages()
    assert "<p>spread 75%, time_gap 25%</p>" in page
    assert "recorded none to compare with" in page
    assert "- looks most at: spread 75%, time_gap 25%" in form

    old = profile(spread=1, time_gap=1)
    mlflow.log_text(runs[0], old.model_dump_json(), "attribution/profile.json")
    page, _ = pages()
    assert '<th scope="row">spread</th><td class="n">50.0%</td><td class="n">75.0%</td>' in page
    assert "25.0% moved between features: 0% means the same shares" in page
    assert "Two halves of one night's windows differ by 5.0%." in page
