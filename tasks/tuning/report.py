"""What a search found: the best specification and plots, in MLflow and on disk."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient
from optuna.visualization import matplotlib as optuna_plots

from model_code.artifacts import atomic_file
from model_code.settings import NightlySpec, Settings
from model_code.settings.changes import changed, to_yaml
from tasks.caching.stage import RunRef
from tasks.runs import mlflow_runs
from tasks.tuning.study import ranked
from tasks.tuning.trial import STUDY_TAG

BEST_FILE = "best.yaml"
ENOUGH = 2  # complete trials; fewer have neither slices nor importances


def best_spec(study: optuna.Study, spec: NightlySpec) -> NightlySpec | None:
    """The specification of the best complete trial; None if there is none."""
    best = ranked(study)
    return changed(spec, best[0].params) if best else None


def publish(run: RunRef, study: optuna.Study, spec: NightlySpec) -> Path | None:
    """Write the best specification under the home folder; it, figures and plots to MLflow.

    Returns:
        The YAML for `tickline nightly --spec`; None if no trial is complete.
    """
    mlflow, run_id = mlflow_runs.client(run.settings), run.mlflow_run_id
    mlflow_runs.set_tags(mlflow, run_id, {STUDY_TAG: study.study_name})
    found = best_spec(study, spec)
    if found is None:
        return None
    text = to_yaml(found)
    path = best_path(run.settings, study.study_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")
    mlflow.log_text(run_id, text, BEST_FILE)
    best = ranked(study)[0]
    mlflow_runs.log_metrics(mlflow, run_id, {"best_mean_auc": best.values[0]})
    mlflow_runs.set_tags(mlflow, run_id, {"tickline.best_trial": str(best.number)})
    _log_plots(mlflow, run_id, study)
    return path


def best_path(settings: Settings, study: str) -> Path:
    """Where a study's best specification is."""
    return settings.home / "tune" / f"{study.replace('/', '-')}.yaml"


def _log_plots(mlflow: MlflowClient, run_id: str, study: optuna.Study) -> None:
    plt.switch_backend("agg")
    draw: dict[str, Callable[[optuna.Study], Any]] = {
        "optimisation_history": optuna_plots.plot_optimization_history
    }
    if len(ranked(study)) >= ENOUGH:
        draw["slices"] = optuna_plots.plot_slice
        if len({trial.values[0] for trial in ranked(study)}) >= ENOUGH:
            draw["parameter_importances"] = optuna_plots.plot_param_importances
    for name, plot in draw.items():
        with warnings.catch_warnings():
            # Optuna's matplotlib plots are marked experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)  # a layout that is a little tight
            figure = np.ravel(np.asarray(plot(study)))[0].figure  # one Axes, or an array of them
        assert isinstance(figure, Figure)  # noqa: S101
        try:
            figure.set_size_inches(10, 6)
            mlflow.log_figure(run_id, figure, f"plots/{name}.png")
        finally:
            plt.close(figure)
