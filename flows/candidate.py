"""From ticks to a judged candidate: the part shared by nightly, bench and backfill."""

import datetime as dt

from model_code.benchmark.goals import Goals
from model_code.engines.registry import ENGINES, unsuitable
from model_code.errors import EngineError
from model_code.features.market import settled
from model_code.settings import REFERENCE_ENGINE, NightlySpec
from tasks.caching.stage import RunRef
from tasks.nightly.baseline import baseline
from tasks.nightly.benchmark import benchmark
from tasks.nightly.build_engine import build_engine
from tasks.nightly.export import export
from tasks.nightly.features import features
from tasks.nightly.find_leaders import find_leaders
from tasks.nightly.gate import gate
from tasks.nightly.records import (
    BuiltEngine,
    Candidate,
    Champion,
    ExportedNetwork,
    Judged,
    Measured,
    Plan,
    Prepared,
    TrainedNetwork,
)
from tasks.nightly.report import publish_validation
from tasks.nightly.split import split
from tasks.nightly.train import train
from tasks.nightly.validate import day_notes, judge_coverage, require_passed, validate


def build_candidate(run: RunRef, spec: NightlySpec, plan: Plan) -> Candidate:
    """Validate, compute features, split, train, export, build; each stage cached by content.

    Raises:
        DataError: a day failed validation.
        EngineError: the reference engine cannot be built.
    """
    made = prepare(run, spec, plan, plan.test_date)
    table = made.table
    windows = split(run, table, spec.split, plan.test_date)
    boosting = baseline(run, table, windows, spec.training.seed)
    network = train(run, table, windows, spec.network, spec.training)
    exported = export(run, table, windows, network.model)
    engines = tuple(_build(run, name, spec, network, exported) for name in spec.benchmark.measured)
    return Candidate(
        notes=made.notes,
        leading=made.leading,
        table=table,
        split=windows,
        baseline=boosting,
        network=network,
        exported=exported,
        engines=engines,
    )


def prepare(run: RunRef, spec: NightlySpec, plan: Plan, test_date: dt.date | None) -> Prepared:
    """Validate the plan's days, find leaders, compute features.

    Args:
        run: where it is logged.
        spec: what to compute.
        plan: the instrument-days.
        test_date: leaders are measured before it; None: all days are for training.

    Raises:
        DataError: a day failed validation.
    """
    days = tuple(validate(run, day, spec.validation) for day in plan.days)
    days = judge_coverage(days, spec.validation, spec.calendar)
    publish_validation(run, plan, days)
    ticks = require_passed(days)
    profiles, symbols = {day.profile for day in days}, {day.symbol for day in days}
    wanted, why = settled(spec.features, profiles, symbols)
    leading = find_leaders(run, ticks, wanted, test_date)
    return Prepared(
        notes=(*day_notes(days), *([why] if why else []), leading.note),
        leading=leading,
        table=features(run, ticks, wanted, leading.leaders, plan.simulated),
    )


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
        champion: the serving version; None for no comparison.
        measure_again: measure even if the same measurement is cached.
    """
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
    )
    return measured, gate(run, measured, goals, plan.simulated, spec.benchmark.pin)


def _build(
    run: RunRef,
    name: str,
    spec: NightlySpec,
    network: TrainedNetwork,
    exported: ExportedNetwork,
) -> BuiltEngine:
    """Build one engine; if that fails, the run continues with the others and reports it.

    Raises:
        EngineError: it is the reference engine.
    """
    reason = ENGINES[name].availability() or unsuitable(name, spec.network)
    try:
        return build_engine(run, name, network.model, exported, network.threshold, reason)
    except EngineError as error:
        if name == REFERENCE_ENGINE:
            raise
        return BuiltEngine(
            name=name, folder=None, unavailable=f"not built: {error.what}", mlflow_run_id=None
        )
