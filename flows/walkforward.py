"""Walk forward in time: every test date is predicted by models of the dates before it.

find days ─ validate ─ find leaders ─ features ─ feature table ─┐
┌───────────────────────────────────────────────────────────────┘
├─ for each date: split ─ fit model, fit rival ...  (fits on the cluster, if one is named)
└─ measure delay ─ bound profit ─ judge

The same command continues after an interruption: finished fits are kept.
"""

import datetime as dt
import math
from typing import Any

import numpy as np
from prefect import flow
from sklearn.metrics import roc_auc_score

from flows.candidate import prepare
from flows.runs.outcome import print_start
from model_code.artifacts import ArtifactRef
from model_code.benchmark.reports.walkforward_report import Walk
from model_code.engines.registry import ENGINES, unsuitable
from model_code.errors import DataError
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.settings import (
    AnyNetworkSpec,
    BoostingSpec,
    NetworkSpec,
    NightlySpec,
    Settings,
    TrainingSpec,
)
from model_code.settings.walkforward import WalkforwardSpec
from tasks.caching.fan_out import fan_out
from tasks.caching.stage import RunRef
from tasks.nightly.build_engine import build_engine
from tasks.nightly.export import export
from tasks.nightly.find_days import SIMULATED, find_days
from tasks.nightly.records import Plan, SplitWindows
from tasks.nightly.split import split
from tasks.runs.console import console
from tasks.runs.lifecycle import exclusive, tracked
from tasks.runs.names import rename, start_name
from tasks.walkforward.bound_profit import bound_profit
from tasks.walkforward.fit_model import fit_model
from tasks.walkforward.fit_rival import RivalName, fit_rival
from tasks.walkforward.fit_shuffled import fit_shuffled
from tasks.walkforward.judge import judge
from tasks.walkforward.measure_delay import ENGINE, measure_delay
from tasks.walkforward.records import Fitted, TestDate, Walker
from tasks.walkforward.report import publish

EXPERIMENT = "walkforward"
ALL_WINDOWS = 1_000_000_000  # more than a date has, so that none is sampled
BOOSTING: RivalName = "tuned boosting"
SOLO = " solo"
Model = tuple[str, AnyNetworkSpec, TrainingSpec]


def models_of(spec: NightlySpec) -> tuple[Model, ...]:
    """Name, network and training of the models to walk; the first is the one in question.

    Left out of the others: boosting, which is among the rivals, tuned; and the design's network,
    which takes minutes for each date. `--network` walks either.
    """
    others = [
        model
        for model in spec.models[1:]
        if not isinstance(model.network, BoostingSpec | NetworkSpec)
    ]
    return tuple((model.name, model.network, model.training) for model in (spec.models[0], *others))


@flow(name="walkforward", flow_run_name=start_name, description=__doc__, persist_result=False)
def walkforward(spec: WalkforwardSpec) -> Walk:
    """Judge the night's models on every test date.

    Raises:
        DataError: fewer than two dates, a day failed validation, or no date can be judged.
    """
    settings = Settings().resolved().model_copy(update={"mlflow_experiment": EXPERIMENT})
    night = spec.night.model_copy(
        update={
            "market": spec.night.market or settings.market or SIMULATED,
            "split": spec.night.split.model_copy(update={"test_windows": ALL_WINDOWS}),
        }
    )
    spec = spec.model_copy(update={"night": night})
    with exclusive(settings):
        print_start("walkforward", night)
        plan = find_days(night, settings.home)
        rename(f"walkforward to {plan.test_date}")
        with tracked(settings, night, simulated=plan.simulated) as run:
            return _walk(run, spec, plan)


def test_dates(dates: list[dt.date], first_test: float) -> list[dt.date]:
    """The dates to predict: from the given share of all on, the second at the earliest."""
    return dates[min(max(1, math.ceil(first_test * len(dates))), len(dates) - 1) :]


def _walk(run: RunRef, spec: WalkforwardSpec, plan: Plan) -> Walk:
    night = spec.night
    wanted = test_dates(sorted({day.date for day in plan.days}), spec.first_test)
    console.print(f"test dates: {', '.join(map(str, wanted))}")
    made = prepare(run, night, plan, wanted[0])
    windows, skipped = _splits(run, spec, made.table, wanted)
    rows = FeatureTable.open(run.store, made.table)
    own = rows.meta.spec.chosen_set
    models = models_of(night)
    walkers = [_model(run, made.table, windows, model, own) for model in models]
    rivals: tuple[RivalName, ...] = ("logistic", "base rate", BOOSTING)
    walkers += [_rival(run, spec, made.table, windows, name, own) for name in rivals]
    if spec.also_solo and own != "solo":
        solo = _solo(run, spec, plan, wanted[0])
        aside, _ = _splits(run, spec, solo, list(windows))
        _require_same(windows, aside)
        walkers.append(_model(run, solo, aside, models[0], "solo", SOLO))
        walkers.append(_rival(run, spec, solo, aside, BOOSTING, "solo", SOLO))

    newest = max(windows)
    seeds = _seeds(run, spec, made.table, windows[newest], newest, models[0], walkers[0].fits[-1])
    shuffled = (
        fit_shuffled(run, made.table, windows[newest], newest, night.training.seed).aucs
        if spec.shuffled
        else ()
    )
    delay_ms = spec.delay_ms
    if delay_ms is None:
        delay_ms = _delay(run, made.table, windows[newest], models[0], walkers[0].fits[-1])
    dates = tuple(
        TestDate(date=date, split=part, earned=bound_profit(run, made.table, part, date, delay_ms))
        for date, part in windows.items()
    )
    judged = tuple(walkers)
    ends = Split.load(run.store.open(windows[newest].windows)).test_ends
    by_name = {walker.name: walker for walker in judged}
    found = Walk(
        judgement=judge(run, made.table, dates, judged),
        newest=str(newest),
        seed_aucs=tuple(_auc(run, fit, rows, ends) for fit in seeds),
        boosting_auc=_auc(run, by_name[BOOSTING].fits[-1], rows, ends),
        shuffled_aucs=shuffled,
        label=rows.meta.spec.chosen_label,
        horizon_ms=rows.meta.spec.horizon_ms,
        cost_bps=rows.meta.spec.cost_bps,
        delay_ms=delay_ms,
        skipped=skipped,
        notes=(*plan.warnings, *made.notes),
        simulated=plan.simulated,
    )
    publish(run, found, made.table, dates, judged)
    return found


def _splits(
    run: RunRef, spec: WalkforwardSpec, table: ArtifactRef, dates: list[dt.date]
) -> tuple[dict[dt.date, SplitWindows], tuple[str, ...]]:
    """The windows of every date that has both classes in each part, and why others are skipped.

    Raises:
        DataError: no date can be judged.
    """
    windows, skipped = {}, []
    for date in dates:
        try:
            windows[date] = split(run, table, spec.night.split, date)
        except DataError as error:
            skipped.append(f"{date} skipped: {error.what}")
    if not windows:
        raise DataError(
            f"none of {len(dates)} test dates can be judged; {skipped[-1]}",
            remedy="add dates or instruments, or change horizon_ms and cost_bps",
        )
    return windows, tuple(skipped)


def _model(
    run: RunRef,
    table: ArtifactRef,
    windows: dict[dt.date, SplitWindows],
    model: Model,
    inputs: str,
    suffix: str = "",
) -> Walker:
    name, network, training = model
    calls = [
        _fit(run, table, part, name + suffix, date, network, training)
        for date, part in windows.items()
    ]
    fits = fan_out(run.settings.cluster, fit_model, calls)
    return Walker(name=name + suffix, inputs=inputs, against=BOOSTING + suffix, fits=fits)


def _rival(
    run: RunRef,
    spec: WalkforwardSpec,
    table: ArtifactRef,
    windows: dict[dt.date, SplitWindows],
    name: RivalName,
    inputs: str,
    suffix: str = "",
) -> Walker:
    calls = [
        {
            "run": run,
            "table": table,
            "split": part,
            "name": name,
            "label": name + suffix,
            "date": date,
            "trials": spec.tuning_trials,
            "seed": spec.night.training.seed,
        }
        for date, part in windows.items()
    ]
    fits = fan_out(run.settings.cluster, fit_rival, calls)
    return Walker(name=name + suffix, inputs=inputs, against=BOOSTING + suffix, fits=fits)


def _solo(run: RunRef, spec: WalkforwardSpec, plan: Plan, first: dt.date) -> ArtifactRef:
    """The same ticks with each instrument's own features alone."""
    own = spec.night.features.with_set("solo")
    return prepare(run, spec.night.model_copy(update={"features": own}), plan, first).table


def _require_same(
    windows: dict[dt.date, SplitWindows], others: dict[dt.date, SplitWindows]
) -> None:
    """Raise DataError unless two feature tables are split into the same windows."""
    for date, part in windows.items():
        if date not in others or others[date].windows.sha256 != part.windows.sha256:
            raise DataError(
                "the feature sets have other windows, so their figures cannot be compared",
                where=f"test date {date}",
                remedy="compare one at a time: --no-solo",
            )


def _seeds(
    run: RunRef,
    spec: WalkforwardSpec,
    table: ArtifactRef,
    part: SplitWindows,
    date: dt.date,
    model: Model,
    own: Fitted,
) -> list[Fitted]:
    name, network, training = model
    seeds = [(training.seed + more) % 2**32 for more in range(1, spec.seeds)]
    calls = [
        _fit(
            run, table, part, f"{name} seed {seed}", date, network,
            training.model_copy(update={"seed": seed}),
        )
        for seed in seeds
    ]  # fmt: skip
    return [own, *fan_out(run.settings.cluster, fit_model, calls)]


def _fit(
    run: RunRef,
    table: ArtifactRef,
    part: SplitWindows,
    name: str,
    date: dt.date,
    network: AnyNetworkSpec,
    training: TrainingSpec,
) -> dict[str, Any]:
    """Arguments of `fit model`."""
    return {
        "run": run,
        "table": table,
        "split": part,
        "name": name,
        "date": date,
        "network_spec": network,
        "training_spec": training,
    }


def _delay(
    run: RunRef, table: ArtifactRef, part: SplitWindows, model: Model, fitted: Fitted
) -> float:
    assert fitted.model is not None, "of a night's model"  # noqa: S101
    exported = export(run, table, part, fitted.model)
    reason = ENGINES[ENGINE].availability() or unsuitable(ENGINE, model[1])
    engine = build_engine(run, ENGINE, fitted.model, exported, fitted.threshold, reason)
    return measure_delay(run, engine, table, part)


def _auc(run: RunRef, fitted: Fitted, rows: FeatureTable, ends: np.ndarray) -> float:
    return float(roc_auc_score(rows.label_N[ends], np.load(run.store.open(fitted.probability))))
