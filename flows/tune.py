"""Search for better values of a few keys of the specification, on the training days alone.

find days ─ validate ─ find leaders ─ features ─ feature table ─┐
┌───────────────────────────────────────────────────────────────┘
└─ folds ─ trial ─ trial ─ ... ─ best, plots   (trials on the cluster, if one is named)

The test date is not read. Resumable: the same command continues the same study.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import optuna
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flows.candidate import prepare
from flows.runs.outcome import print_start
from infra.cluster.runner import task_runner
from model_code.artifacts import ArtifactRef
from model_code.errors import ConfigError, DataError
from model_code.settings import NightlySpec, Settings
from model_code.settings.cluster import local_workers
from model_code.settings.tuning import TuneSpec, as_given, require_searchable
from tasks.caching.fan_out import in_turn
from tasks.nightly.find_days import SIMULATED, find_days
from tasks.nightly.records import Record
from tasks.runs.console import console
from tasks.runs.lifecycle import exclusive, tracked
from tasks.runs.names import rename, start_name
from tasks.tuning import study as studies
from tasks.tuning.report import publish
from tasks.tuning.trial import Bench, run_trial, run_trial_in_worker

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
def tune(spec: NightlySpec, search: TuneSpec, parallel: int | None = None) -> Tuned:
    """Run trials until the study has as many as asked for.

    Args:
        spec: where every trial starts from.
        search: what to draw, how many trials, how many folds.
        parallel: trials at a time on the cluster; None: one for each worker that it starts.

    Raises:
        ConfigError: a searched key or value is wrong, the study searches something else, or the
            number of trials at a time is missing or is more than one without a cluster.
        DataError: a day failed validation, the days are too few for the folds, or every trial
            failed.
    """
    settings = Settings().resolved().model_copy(update={"mlflow_experiment": EXPERIMENT})
    spec = spec.model_copy(update={"market": spec.market or settings.market or SIMULATED})
    require_searchable(spec, search)
    at_a_time = trials_at_a_time(settings, parallel)
    with exclusive(settings):
        print_start("tune", spec)
        found = find_days(spec, settings.home)
        rename(f"tune before {found.test_date}")
        plan = found.model_copy(update={"test": ()})
        with tracked(settings, spec, simulated=plan.simulated) as run:
            table = prepare(run, spec, plan, None).table
            bench = Bench.opened(run, spec, table, search.folds)
            study = studies.open_study(settings, spec, search, plan.digest, at_a_time)
            _run_trials(bench, table, study, search, at_a_time)
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


def trials_at_a_time(settings: Settings, parallel: int | None) -> int:
    """How many trials to have in hand.

    Raises:
        ConfigError: more than one without a cluster, or unknown for a cluster at an address.
    """
    if settings.cluster is None:
        if (parallel or 1) > 1:
            raise ConfigError(
                f"{parallel} trials at a time need workers",
                where="--parallel",
                remedy=f"--cluster processes:{parallel}, or leave --parallel out",
            )
        return 1
    found = parallel or local_workers(settings.cluster)
    if found is None:
        raise ConfigError(
            "how many trials to run at a time is not known",
            where=f"cluster {settings.cluster}",
            remedy="give the number of its workers: --parallel N",
        )
    return found


def _run_trials(
    bench: Bench, table: ArtifactRef, study: optuna.Study, search: TuneSpec, at_a_time: int
) -> None:
    done = len(studies.ended(study))
    console.print(f"study [bold]{study.study_name}[/]: {done} of {search.trials} trials done")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    cluster, asked = bench.run.settings.cluster, list[optuna.Trial]()
    with ExitStack() as stack:
        bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
        stack.enter_context(bar)
        trials = bar.add_task("trials", total=search.trials, completed=done)
        drawn = _draw(bench, study, search, done, asked)
        if cluster is None:
            parts = bar.add_task("folds", total=search.folds)
            states: Iterator[str] = (
                run_trial(bench, study, trial, trial.number, lambda: bar.advance(parts))
                for trial in drawn
            )
        else:
            runner = stack.enter_context(task_runner(cluster))
            calls = (_call(bench, table, study, search, trial) for trial in drawn)
            states = in_turn(runner, run_trial_in_worker, calls, at_a_time)
        for index, state in enumerate(states):
            if cluster is None:
                bar.reset(parts)
            bar.advance(trials)
            trial = asked[index]
            scores = study.trials[trial.number].user_attrs["fold_aucs"]
            mean = f"AUC {sum(scores) / len(scores):.4f}" if scores else ""
            console.print(f"  {state:<9} trial {trial.number} {mean}  [dim]{_text(trial.params)}")


def _draw(
    bench: Bench, study: optuna.Study, search: TuneSpec, done: int, asked: list[optuna.Trial]
) -> Iterator[optuna.Trial]:
    """Draw the trials that are left, each when it is wanted, and note it in `asked`."""
    drawn = studies.distributions(search)
    for _ in range(search.trials - done):
        trial = study.ask(drawn)
        trial.set_user_attr(studies.OWNER, studies.owner(bench.run.settings))
        asked.append(trial)
        yield trial


def _call(
    bench: Bench, table: ArtifactRef, study: optuna.Study, search: TuneSpec, trial: optuna.Trial
) -> dict[str, Any]:
    return {
        "run": bench.run,
        "spec": bench.spec,
        "table": table,
        "folds": search.folds,
        "study": study.study_name,
        "trial_id": trial._trial_id,  # no public name opens a trial elsewhere
        "number": trial.number,
    }


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
