"""The nightly retraining: from ticks to a staged, judged candidate. Nothing goes live here.

find days ─ validate ─ features ─ split ─┬─ baseline ─────────────────────────────┐
                                         └─ train ─ export ─ engines ─ benchmark ─┴─ gate
                                                                                      │
                                         staging repository ─ MLflow registry ────────┘
"""

import time

from prefect import flow
from prefect.runtime import flow_run
from prefect.settings import PREFECT_TASKS_REFRESH_CACHE, temporary_settings

from flows.summary import Outcome, announce
from model_code.settings import NightlySpec, Settings
from tasks import data, engines, model, release, report
from tasks.runs import exclusive, tracked


@flow(name="nightly", description=__doc__, persist_result=False)
def nightly(spec: NightlySpec, refresh: bool = False) -> Outcome:
    """Retrain on the store's newest days and judge on the newest.

    Args:
        spec: what to compute; the store defaults to TICKLINE_MARKET, else the simulated market.
        refresh: compute every stage again, cached or not.
    """
    settings, started = Settings().resolved(), time.monotonic()
    spec = spec.model_copy(update={"market": spec.market or settings.market or data.SIMULATED})
    goals = release.read_goals(spec.goals)  # a typo in them must not cost a night
    name = str(flow_run.name)
    fresh = temporary_settings({PREFECT_TASKS_REFRESH_CACHE: refresh})
    with exclusive(settings), fresh:
        announce(name, spec)
        plan = data.find_days(spec)
        with tracked(settings, spec, simulated=plan.simulated) as run:
            days = tuple(data.validate(run, day, spec.validation) for day in plan.days)
            report.publish_validation(run, plan, days)
            ticks = data.require_passed(days)

            table = data.build_features(run, ticks, spec.features, plan.simulated)
            split = data.split_windows(run, table, spec.split, plan.test_date)
            rival = model.baseline(run, table, split, spec.training.seed)
            network = model.train(run, table, split, spec.network, spec.training)
            exported = model.export_network(run, table, split, network.model)

            built = tuple(
                engines.build_engine(run, name, network.model, exported)
                for name in spec.benchmark.measured
            )
            champion = release.find_champion(run)
            measured = engines.measure_engines(run, table, split, built, champion, spec.benchmark)
            verdict = engines.judge(run, measured, goals, plan.simulated)

            version = release.register(run, plan, exported, verdict)
            staged = release.stage_candidate(
                run, plan, built, verdict, version, str(settings.staging_repository)
            )
            results = (plan, split, rival, network, measured, verdict, version, staged)
            report.publish_outcome(run, *results)
    seconds = time.monotonic() - started
    return Outcome.of(run, name, *results).model_copy(update={"seconds": seconds})
