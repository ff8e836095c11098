"""The notebook runs from top to bottom on a fresh nightly run."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from model_code.settings import Settings
from tests.support.flow import dataset_inputs, nightly_outcome, tiny

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "compare_runs.ipynb"
MARKET = "simulated:?seed=3&instruments=1&days=2&minutes=2"
OWN = r"(model_code|tasks|flows|infra)\b"
GOALS = "goals:\n  - {name: finite, metric: non_finite, kind: threshold, maximum: 0}\n"


def executed(folder: Path) -> Any:
    """The notebook with the outputs of a fresh kernel started in `folder`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel's client warns of its own paths and sockets
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read(NOTEBOOK, as_version=4)
        nbformat.validate(notebook)
        context = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=200, iopub_timeout=60, resources=context).execute()
    return notebook


@pytest.mark.slow
def test_notebook_shows_the_run_its_curves_and_its_engines(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goals = tmp_path / "goals.yaml"
    goals.write_text(GOALS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of itself: on import, and with pandas 3
        warnings.filterwarnings("error", module=OWN)
        outcome = nightly_outcome(tiny(MARKET, goals=str(goals)))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = executed(tmp_path)

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.ename for output in outputs if output.output_type == "error"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    shown = "\n".join(
        output.get("text", "") + "\n".join(map(str, output.get("data", {}).values()))
        for output in outputs
    )
    assert f"{outcome.flow_run_name} {outcome.mlflow_run_id}" in shown
    for row in outcome.benchmark.rows:
        assert row.engine in shown
    assert outcome.verdict.reason in shown
    # digests are those the run logged
    run = MlflowClient(home.tracking_uri).get_run(outcome.mlflow_run_id)
    inputs = dataset_inputs(run)
    assert len(inputs) == 2
    assert all(given.dataset.digest in shown for given in inputs)


def test_notebook_is_saved_without_outputs() -> None:
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
