"""Every notebook runs from top to bottom on a fresh nightly run."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from flows.walkforward import walkforward
from model_code.benchmark.reports.walkforward_report import last_line
from model_code.settings import MlpSpec, Settings, TrainingSpec
from model_code.settings.walkforward import WalkforwardSpec
from tests.support.flow import dataset_inputs, nightly_outcome, tiny

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
MARKET = "simulated:?seed=3&instruments=1&days=2&minutes=2"
WALKED = "simulated:?seed=3&instruments=1&days=3&minutes=2"
OWN = r"(model_code|tasks|flows|infra)\b"
GOALS = "goals:\n  - {name: finite, metric: non_finite, kind: threshold, maximum: 0}\n"


def executed(name: str, folder: Path) -> Any:
    """The notebook with the outputs of a fresh kernel started in `folder`, none an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel's client warns of its own paths and sockets
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        nbformat.validate(notebook)
        context = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=200, iopub_timeout=60, resources=context).execute()
    return notebook


@pytest.mark.slow
def test_notebooks_show_the_run_its_curves_its_engines_and_its_errors(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goals = tmp_path / "goals.yaml"
    goals.write_text(GOALS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of itself: on import, and with pandas 3
        warnings.filterwarnings("error", module=OWN)
        outcome = nightly_outcome(tiny(MARKET, goals=str(goals)))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    shown = shown_by(executed("compare_runs.ipynb", tmp_path), pictures=3)
    assert f"{outcome.flow_run_name} {outcome.mlflow_run_id}" in shown
    for row in outcome.benchmark.rows:
        assert row.engine in shown
    assert outcome.verdict.reason in shown
    # digests are those the run logged
    run = MlflowClient(home.tracking_uri).get_run(outcome.mlflow_run_id)
    inputs = dataset_inputs(run)
    assert len(inputs) == 2
    assert all(given.dataset.digest in shown for given in inputs)

    shown = shown_by(executed("errors_and_calibration.ipynb", tmp_path), pictures=2)
    assert f"{outcome.flow_run_name} {outcome.mlflow_run_id} {outcome.engine}" in shown
    assert f"gradient boosting {outcome.baseline['auc']:.4f}" in shown

    shown = shown_by(executed("latency_against_accuracy.ipynb", tmp_path), pictures=1)
    assert f"{outcome.mlflow_run_id} staged: {outcome.engine}" in shown
    for row in outcome.benchmark.rows:
        assert row.engine in shown


@pytest.mark.slow
def test_the_notebook_of_a_walk_shows_every_model_and_date(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = TrainingSpec(epochs=1, windows_per_epoch=512)
    night = tiny(WALKED, network=MlpSpec(hidden=16, layers=1), training=quick)
    spec = WalkforwardSpec(
        night=night, first_test=0.0, tuning_trials=1, seeds=1, also_solo=False, shuffled=False,
        delay_ms=1.0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of itself on import
        walk = walkforward(spec)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    shown = shown_by(executed("walkforward.ipynb", tmp_path), pictures=2)
    assert last_line(walk) in shown
    for row in walk.judgement.rows:
        assert row.name in shown
        assert all(f"{round(auc, 4):g}" in shown for auc in row.date_aucs if auc is not None)
    assert all(date in shown for date in walk.judgement.dates)


@pytest.mark.slow
def test_the_notebook_of_ticks_needs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("TICKLINE_MARKET", MARKET)
    shown = shown_by(executed("ticks_and_labels.ipynb", tmp_path), pictures=2)
    assert "labelled 1" in shown
    assert "0.5 bps" in shown


def shown_by(notebook: Any, *, pictures: int) -> str:
    """What the outputs say; there are at least this many pictures and no errors."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.ename for output in outputs if output.output_type == "error"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= pictures
    return "\n".join(
        output.get("text", "") + "\n".join(map(str, output.get("data", {}).values()))
        for output in outputs
    )


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_saved_without_outputs(path: Path) -> None:
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
