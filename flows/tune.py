"""Search for better values of a few keys of the specification, on the training days alone.

find days ─ validate ─ find leaders ─ features ─ feature table ─┐
┌───────────────────────────────────────────────────────────────┘
└─ folds ─ trial ─ trial ─ ... ─ best, plots

The test date is not read. Resumable: the same command continues the same study.
"""

import optuna
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flows.candidate import prepare
from flows.runs.outcome import print_start
from model_code.errors import DataError
from model_code.features.dataset import FeatureTable
from model_code.features.folds import folds
from model_code.settings import NightlySpec, Settings
from model_code.settings.tuning import TuneSpec, as_given, require_searchable
from tasks.nightly.find_days import SIMULATED, find_days
from tasks.nightly.records import Record
from tasks.runs.console import console
from tasks.runs.lifecycle import exclusive, tracked
from tasks.runs.names import rename, start_name
from tasks.tuning import study as studies
from tasks.tuning.report import publish
from tasks.tuning.trial import Bench, run_trial

EXPERIMENT = "tune"
SHOWN = 10


class TriedValues(Record):
    """One complete trial: its number, mean AUC over the folds, each fold's, and what was drawn."""

    number: int
    auc: float
    folds: tuple[float, ...]
    params: dict[str, str | int | float | bool | None]


class Tuned(Record):
    """What a study has found so far.

    Attributes:
        study: its name, to resume it.
        states: number of ended trials by state.
        best: complete trials, the best first.
        given: number of the trial of the specification's own values; None if it has none.
        spec_path: YAML of the best; None if no trial is complete.
        error: of the last failed trial; empty if none failed.
        simulated: whether any ticks are simulated.
    """

    study: str
    states: dict[str, int]
    best: tuple[TriedValues, ...]
    given: int | None
    spec_path: str | None
    error: str
    simulated: bool


@flow(name="tune", flow_run_name=start_name, description=__doc__, persist_result=False)
def tune(spec: NightlySpec, search: TuneSpec) -> Tuned:
    """Run trials until the study has as many as asked for.

    Args:
        spec: where every trial starts from.
        search: what to draw, how many trials, how many folds.

    Raises:
        ConfigError: a searched key or value is wrong, or the study searches something else.
        DataError: a day failed validation, the days are too few for the folds, or every trial
            failed.
    """
    settings = Settings().resolved().model_copy(update={"mlflow_experiment": EXPERIMENT})
    spec = spec.model_copy(update={"market": spec.market or settings.market or SIMULATED})
    require_searchable(spec, search)
    with exclusive(settings):
        print_start("tune", spec)
        found = find_days(spec, settings.home)
        rename(f"tune before {found.test_date}")
        plan = found.model_copy(update={"test": ()})
        with tracked(settings, spec, simulated=plan.simulated) as run:
            rows = FeatureTable.open(run.store, prepare(run, spec, plan, None).table)
            bench = Bench(run, spec, rows, folds(rows, spec.split, search.folds))
            study = studies.open_study(settings, spec, search, plan.digest)
            _run_trials(bench, study, search)
            path = publish(run, study, spec)
            tuned = _tuned(study, spec, search, None if path is None else str(path), plan.simulated)
            create_markdown_artifact(_markdown(tuned), key="tune", description="Best trials.")
            if path is None:
                raise DataError(
                    f"none of {len(studies.ended(study))} trials is complete: {tuned.error}",
                    where=f"study {study.study_name}",
                    remedy="search other values in a study of another name: --study NAME",
                )
    return tuned


def _run_trials(bench: Bench, study: optuna.Study, search: TuneSpec) -> None:
    drawn = studies.distributions(search)
    done = len(studies.ended(study))
    console.print(f"study [bold]{study.study_name}[/]: {done} of {search.trials} trials done")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        trials = bar.add_task("trials", total=search.trials, completed=done)
        parts = bar.add_task("folds", total=search.folds)
        while done < search.trials:
            trial = study.ask(drawn)
            bar.reset(parts)
            state = run_trial(bench, study, trial, trial.number, lambda: bar.advance(parts))
            bar.advance(trials)
            done += 1
            scores = study.trials[trial.number].user_attrs["fold_aucs"]
            mean = f"AUC {sum(scores) / len(scores):.4f}" if scores else ""
            console.print(f"  {state:<9} trial {trial.number} {mean}  [dim]{_text(trial.params)}")


def _tuned(
    study: optuna.Study,
    spec: NightlySpec,
    search: TuneSpec,
    path: str | None,
    simulated: bool,
) -> Tuned:
    ended = studies.ended(study)
    states = [trial.state.name for trial in ended]
    best = tuple(
        TriedValues(
            number=trial.number,
            auc=float(trial.values[0]),
            folds=tuple(trial.user_attrs["fold_aucs"]),
            params=trial.params,
        )
        for trial in studies.ranked(study)
    )
    own = as_given(spec, search)
    errors = [
        str(trial.user_attrs[studies.ERROR]) for trial in ended if studies.ERROR in trial.user_attrs
    ]
    return Tuned(
        study=study.study_name,
        states={state: states.count(state) for state in sorted(set(states))},
        best=best[:SHOWN],
        given=next((trial.number for trial in best if trial.params == own), None),
        spec_path=path,
        error=errors[-1] if errors else "",
        simulated=simulated,
    )


def _text(params: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in params.items())


def _markdown(tuned: Tuned) -> str:
    lines = ["| trial | mean AUC | values |", "|---|---|---|"]
    lines += [f"| {row.number} | {row.auc:.4f} | {_text(dict(row.params))} |" for row in tuned.best]
    note = "> **SIMULATED DATA.**\n\n" if tuned.simulated else ""
    return f"{note}Study {tuned.study}\n\n" + "\n".join(lines)
