"""From ticks to a judged candidate: the part shared by nightly, bench and backfill."""

import datetime as dt
import logging
from collections.abc import Mapping

from prefect import Task
from rich.markup import escape

from model_code.artifacts import ArtifactRef
from model_code.benchmark.goals import Goals
from model_code.benchmark.roster import failure
from model_code.engines.registry import ENGINES, unsuitable
from model_code.features.definition import look_at
from model_code.features.market import settled
from model_code.features.served import ServedFeatures
from model_code.features.shard import Shard
from model_code.repository.terms import Terms
from model_code.settings import (
    BESIDE_ENGINES,
    DESIGN,
    REFERENCE_ENGINE,
    FeatureSpec,
    Leaders,
    ModelSpec,
    NightlySpec,
)
from model_code.training.start import StartingPoint, startable
from tasks.caching.fan_out import fan_out
from tasks.caching.stage import RunRef
from tasks.monitoring.report import publish_validation
from tasks.nightly.attribute import attribute
from tasks.nightly.baseline import baseline
from tasks.nightly.benchmark import benchmark
from tasks.nightly.build_engine import build_engine
from tasks.nightly.choose_model import choose_model
from tasks.nightly.export import export
from tasks.nightly.feature_table import feature_table
from tasks.nightly.features import features, others_of
from tasks.nightly.find_leaders import find_leaders
from tasks.nightly.gate import gate
from tasks.nightly.records import (
    Attributed,
    BuiltEngine,
    Candidate,
    Champion,
    CleanDay,
    Judged,
    Measured,
    Plan,
    Prepared,
    SplitWindows,
    Supplements,
    TrainedModel,
)
from tasks.nightly.split import split
from tasks.nightly.train import train
from tasks.nightly.validate import day_notes, judge_coverage, require_passed, validate
from tasks.runs.console import console
from tasks.runs.page import say
from tasks.validation.as_of import SeenTicks, recall, require_supplements


def build_candidate(
    run: RunRef,
    spec: NightlySpec,
    plan: Plan,
    champion: Champion | None = None,
    earlier: SeenTicks | None = None,
) -> Candidate:
    """Validate, compute features, split, train, export, build; each stage cached by content.

    Args:
        run: where it is logged.
        spec: what to compute.
        plan: the instrument-days.
        champion: with the weights that a model with `training.start` champion starts from. Another
            model than the first is left out with a note if it cannot.
        earlier: ticks of an earlier run, as `prepare`.

    Raises:
        DataError: a day failed validation.
        ConfigError: the first model cannot start from the champion's weights.
        EngineError: the reference engine cannot be built.
    """
    made = prepare(run, spec, plan, plan.test_date, earlier)
    windows = split(run, made.table, spec.split, plan.test_date)
    boosting = baseline(run, made.table, windows, spec.training.seed)
    start = champion.start if champion else None
    seen = made.features.model_copy(update={"leaders": made.leading.leaders})
    until = str(windows.summary["train"]["last"])
    models, left_out = startable(spec.models, start, seen, until)
    trained = tuple(_train(run, made.table, windows, model, spec, start) for model in models)
    choice = None
    if len(models) > 1:
        choice = choose_model(run, made.table, windows, trained, boosting)
    chosen = choice.name if choice else spec.models[0].name
    by_name = {model.name: model for model in trained}
    engines = tuple(
        _build(run, name, by_name[chosen], _spec(spec, chosen)) for name in spec.benchmark.measured
    )
    return Candidate(
        notes=(*made.notes, *left_out),
        ticks=made.ticks,
        features=made.features,
        leading=made.leading,
        table=made.table,
        split=windows,
        baseline=boosting,
        model=_spec(spec, chosen),
        choice=choice,
        beside=_beside(run, spec, chosen, by_name),
        network=by_name[chosen].network,
        exported=by_name[chosen].exported,
        engines=engines,
    )


def explain_candidate(run: RunRef, spec: NightlySpec, candidate: Candidate) -> Attributed | None:
    """Show which features the candidate looks at; None if the specification turns that off.

    A failure is reported and costs nothing else: no other stage uses the result.
    """
    if spec.attributions.windows == 0:
        return None
    try:
        return attribute(
            run, candidate.table, candidate.split, candidate.exported, spec.attributions
        )
    except Exception as error:
        what = str(error).partition("\n")[0] or type(error).__name__
        console.print(f"[yellow]no attributions: {escape(what)}")
        say(f"no attributions: {what}", logging.WARNING)
        return Attributed(failure=what)


def prepare(
    run: RunRef,
    spec: NightlySpec,
    plan: Plan,
    test_date: dt.date | None,
    earlier: SeenTicks | None = None,
) -> Prepared:
    """Validate the plan's days, find leaders, compute features.

    Args:
        run: where it is logged.
        spec: what to compute.
        plan: the instrument-days.
        test_date: leaders are measured before it; None: all days are for training.
        earlier: ticks of a run, used instead of the market's; None: validate the market's.

    Raises:
        ConfigError: what the earlier run saw is not stored any more.
        DataError: a day failed validation.
    """
    if earlier:
        days = tuple(recall(run, earlier.run, day) for day in earlier.days)
    else:
        calls = [{"run": run, "source": day, "spec": spec.validation} for day in plan.days]
        days = fan_out(run.settings.cluster, validate, calls)
        days = judge_coverage(days, spec.validation, spec.calendar)
    publish_validation(run, plan, days)
    ticks = require_passed(run.store, days)
    profiles, symbols = {day.profile for day in days}, {day.symbol for day in days}
    wanted, why = settled(spec.features, profiles, symbols)
    if earlier:
        require_supplements(plan, wanted, days)
    leading = find_leaders(run, ticks, wanted, test_date)
    shards = _shards(run, features, plan, ticks, wanted, leading.leaders)
    left_out = (note for shard in shards for note in shard.meta.notes)
    return Prepared(
        notes=(*day_notes(days), *([why] if why else []), leading.note, *left_out),
        ticks=ticks,
        features=wanted,
        leading=leading,
        table=feature_table(run, shards, wanted, leading.leaders, plan.simulated),
    )


def _shards(
    run: RunRef,
    compute: Task[..., Shard],
    plan: Plan,
    ticks: tuple[CleanDay, ...],
    spec: FeatureSpec,
    leaders: Leaders,
) -> tuple[Shard, ...]:
    """The features of each instrument-day, which later nights with that day find again."""
    each = spec.model_copy(update={"leaders": None})  # they name those of other instruments too
    calls = []
    for day in ticks:
        seen = leaders.get(day.symbol, ())[: look_at(each.chosen_set)]
        call = {"run": run, "day": day, "others": others_of(day, ticks, each, seen), "spec": each}
        calls.append(call | {"leaders": seen, "supplements": Supplements.of(plan, each, day)})
    return fan_out(run.settings.cluster, compute, calls)


def judge_candidate(
    run: RunRef,
    spec: NightlySpec,
    plan: Plan,
    candidate: Candidate,
    champion: Champion | None,
    goals: Goals,
    *,
    measure_again: bool = False,
) -> tuple[Measured, Judged]:
    """Measure the engines side by side with the champion, and let the gate judge them.

    Args:
        champion: the serving version, and with it the anchor; None for no comparison.
        measure_again: measure even if the same measurement is cached.
    """
    champion_table = _table_of(run, plan, candidate, champion)
    champion, anchor_table = _with_anchor_table(run, plan, candidate, champion)
    measure = benchmark.with_options(refresh_cache=True) if measure_again else benchmark
    measured = measure(
        run,
        candidate.table,
        candidate.split,
        candidate.engines,
        champion,
        candidate.baseline,
        candidate.network.threshold,
        spec.benchmark,
        candidate.beside,
        champion_table,
        anchor_table,
        Terms.of(candidate.features, spec.split),
        goals,
        spec.serving,
    )
    return measured, gate(run, measured, goals, plan.simulated, spec.benchmark.pin)


def _with_anchor_table(
    run: RunRef, plan: Plan, candidate: Candidate, champion: Champion | None
) -> tuple[Champion | None, ArtifactRef | None]:
    """The champion with its anchor and the anchor's table; without an anchor that has none."""
    anchor = champion.anchor if champion else None
    if champion is None or anchor is None or anchor.version == champion.version:
        return champion, None
    try:
        return champion, _table_of(run, plan, candidate, anchor)
    except Exception as error:  # a version of many nights ago must not end the night
        why = f"version {anchor.version}, of many nights ago: {failure('features', error)}"
        return champion.model_copy(update={"anchor": None, "no_anchor": why}), None


def _table_of(
    run: RunRef, plan: Plan, candidate: Candidate, version: Champion | None
) -> ArtifactRef | None:
    """The same rows with an earlier version's features; None if they are the candidate's."""
    own = ServedFeatures.of(candidate.features, candidate.leading.leaders).seen
    if version is None or version.features == own:
        return None
    seen = version.features
    spec = candidate.features.with_set(seen.feature_set, seen.exogenous)
    suffix = f" of version {version.version}"
    compute = features.with_options(task_run_name=f"features {{day.symbol}} {{day.date}}{suffix}")
    join = feature_table.with_options(task_run_name=f"feature table{suffix}")
    shards = _shards(run, compute, plan, candidate.ticks, spec, seen.leaders)
    return join(run, shards, spec, seen.leaders, plan.simulated)


def _train(
    run: RunRef,
    table: ArtifactRef,
    windows: SplitWindows,
    model: ModelSpec,
    spec: NightlySpec,
    start: StartingPoint | None,
) -> TrainedModel:
    """Train and export one model; every model but the first has its name in its stages' names."""
    fit, write, name = train, export, "training"
    if model != spec.models[0]:
        fit = train.with_options(task_run_name=f"train {model.name}")
        write = export.with_options(task_run_name=f"export {model.name}")
        name = f"training {model.name}"
    if model.training.start != "champion":
        start = None
    network = fit(run, table, windows, model.network, model.training, name, start)
    exported = write(run, table, windows, network.model)
    return TrainedModel(name=model.name, network=network, exported=exported)


def _spec(spec: NightlySpec, name: str) -> ModelSpec:
    return next(model for model in spec.models if model.name == name)


def _beside(
    run: RunRef, spec: NightlySpec, chosen: str, models: Mapping[str, TrainedModel]
) -> tuple[BuiltEngine, ...]:
    """Engines of the design's network, to be timed beside those of another candidate."""
    if chosen == DESIGN.name or DESIGN.name not in models:
        return ()
    return tuple(
        _build(run, name, models[DESIGN.name], _spec(spec, DESIGN.name), prefix=f"{DESIGN.name} ")
        for name in BESIDE_ENGINES
    )


def _build(
    run: RunRef, name: str, model: TrainedModel, spec: ModelSpec, *, prefix: str = ""
) -> BuiltEngine:
    """Build one engine; if that fails, the run continues with the others and reports it.

    Raises:
        Exception: the reference engine's own.
    """
    network, exported = model.network, model.exported
    build = build_engine
    if prefix:
        build = build_engine.with_options(task_run_name=f"build {prefix}{name}")
    try:
        reason = ENGINES[name].availability() or unsuitable(name, spec.network)
        return build(run, name, network.model, exported, network.threshold, reason, prefix)
    except Exception as error:  # whatever a library raises: the others are measured all the same
        if prefix + name == REFERENCE_ENGINE:
            raise
        why = failure("build", error)
        console.print(f"[yellow]{prefix}{name} {escape(why)}")
        say(f"{prefix}{name} {why}", logging.WARNING)
        return BuiltEngine(name=prefix + name, folder=None, unavailable=why, mlflow_run_id=None)
