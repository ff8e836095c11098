"""One trial: the network trained once per fold, judged on the fold's own block."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import optuna
from optuna.trial import TrialState
from prefect import task
from prefect.cache_policies import NO_CACHE

from model_code.artifacts import ArtifactRef
from model_code.errors import TicklineError
from model_code.features.dataset import FeatureTable
from model_code.features.folds import Fold, folds
from model_code.settings import NightlySpec
from model_code.settings.changes import changed
from model_code.training import loop
from model_code.training.auxiliary import auxiliary_labels
from model_code.training.distillation import Instants
from model_code.training.evaluation import evaluate
from tasks.caching.stage import RunRef
from tasks.runs import mlflow_runs
from tasks.tuning.study import ENDED, ERROR, join_study

STATE_TAG = "tickline.trial_state"
STUDY_TAG = "tickline.study"


@dataclass(frozen=True)
class Bench:
    """What every trial of a search is measured with."""

    run: RunRef
    spec: NightlySpec
    table: FeatureTable
    folds: tuple[Fold, ...]

    @classmethod
    def opened(cls, run: RunRef, spec: NightlySpec, table: ArtifactRef, count: int) -> Self:
        """Of a stored feature table, cut into so many folds.

        Raises:
            DataError: the days are too few for the folds.
        """
        rows = FeatureTable.open(run.store, table)
        return cls(run, spec, rows, folds(rows, spec.split, count))


@task(
    name="trial",
    task_run_name="trial {number}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def run_trial_in_worker(
    run: RunRef,
    spec: NightlySpec,
    table: ArtifactRef,
    folds: int,
    study: str,
    trial_id: int,
    number: int,
) -> str:
    """`run_trial` in a process that opens table and study itself.

    A trial of a worker that was killed is repeated; one that has ended is not.
    """
    joined = join_study(run.settings, study)
    state = joined.trials[number].state
    if state.is_finished():
        return state.name
    bench = Bench.opened(run, spec, table, folds)
    return run_trial.fn(bench, joined, optuna.Trial(joined, trial_id), number, lambda: None)


@task(name="trial", task_run_name="trial {number}", cache_policy=NO_CACHE, persist_result=False)
def run_trial(
    bench: Bench,
    study: optuna.Study,
    trial: optuna.Trial,
    number: int,
    on_fold: Callable[[], None],
) -> str:
    """Train and judge on every fold, or until the median of earlier trials is out of reach.

    Args:
        bench: ticks and folds.
        study: to report to.
        trial: the drawn values.
        number: of the trial.
        on_fold: called after each fold.

    Returns:
        COMPLETE, PRUNED or FAIL, as the study and MLflow's nested run have it.
    """
    mlflow = mlflow_runs.client(bench.run.settings)
    run_id = mlflow_runs.nested(
        mlflow, bench.run.settings, bench.run.mlflow_run_id, f"trial {number}"
    )
    mlflow_runs.log_params(mlflow, run_id, trial.params)
    reported = study.trials[number].intermediate_values  # by a worker that was killed
    scores: list[float] = []
    state = TrialState.COMPLETE
    try:
        spec = changed(bench.spec, trial.params)
        for fold in bench.folds:
            scores.append(_score(bench, spec, fold))
            mean = sum(scores) / len(scores)
            mlflow_runs.log_metrics(
                mlflow, run_id, {"fold_auc": scores[-1], "mean_auc": mean}, step=len(scores)
            )
            if len(scores) not in reported:
                trial.report(mean, len(scores))
            on_fold()
            if len(scores) < len(bench.folds) and trial.should_prune():
                state = TrialState.PRUNED
                break
    except (TicklineError, ValueError, AssertionError) as error:
        # one bad combination: a rate that diverges, heads that do not divide d_model (torch's
        # assertion), a refused value; the search goes on without it
        state = TrialState.FAIL
        text = str(error)[:500]
        trial.set_user_attr(ERROR, text)
        mlflow_runs.set_tags(mlflow, run_id, {mlflow_runs.ERROR_TAG: text})
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)  # interrupted: it is tried again
        mlflow.set_terminated(run_id, "KILLED")
        raise
    trial.set_user_attr("fold_aucs", scores)
    trial.set_user_attr(ENDED, True)
    complete = state == TrialState.COMPLETE
    study.tell(trial, sum(scores) / len(scores) if complete else None, state=state)
    mlflow_runs.set_tags(mlflow, run_id, {STATE_TAG: state.name, STUDY_TAG: study.study_name})
    mlflow.set_terminated(run_id, "FAILED" if state == TrialState.FAIL else "FINISHED")
    return state.name


def _score(bench: Bench, spec: NightlySpec, fold: Fold) -> float:
    """AUC on the fold's block of the network trained on the windows around it."""
    table = bench.table
    with bench.run.store.scratch() as scratch:
        result = loop.train(
            table.features_NF,
            table.label_N,
            fold.train_ends,
            fold.validation_ends,
            network_spec=spec.network,
            training_spec=spec.training,
            checkpoints=scratch / "checkpoints",
            feature_spec=table.meta.mirrored_spec,
            instants=Instants(table.timestamp_N, table.meta.spec.horizon_ms),
            auxiliary_NA=auxiliary_labels(
                table, spec.training.auxiliary, fold.train_ends, fold.validation_ends
            ),
        )
    figures = evaluate(result.model, table.features_NF, table.label_N, fold.validation_ends)
    return float(figures["auc"])
