"""The nightly retraining: from ticks to a staged, judged candidate. Nothing goes live here.

find days ─ validate ─ features ─ split ─┬─ baseline ─────────────────────────────┐
                                         └─ train ─ export ─ engines ─ benchmark ─┴─ gate
                                                                                      │
                                         staging repository ─ MLflow registry ────────┘
"""

import time

from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.candidate import build_candidate
from flows.schedule import reason_to_skip
from flows.summary import Outcome, announce
from model_code.settings import NightlySpec, Settings
from tasks import data, engines, release, report
from tasks.fresh import refreshing
from tasks.recorded import record_requests
from tasks.runs import exclusive, tracked


@flow(name="nightly", description=__doc__, persist_result=False)
def nightly(spec: NightlySpec, refresh: bool = False) -> Outcome | State[None]:
    """Retrain on the store's newest days and judge on the newest.

    Args:
        spec: what to compute; the store defaults to TICKLINE_MARKET, else the simulated market.
        refresh: take no stage's result from before this run; a rerun goes on with its own.

    Returns:
        The outcome, or the state Skipped where the schedule started a night that is not due.
    """
    skip = reason_to_skip(spec)
    if skip:
        return Completed(name="Skipped", message=f"Skipped: {skip}")
    settings, started = Settings().resolved(), time.monotonic()
    spec = spec.model_copy(update={"market": spec.market or settings.market or data.SIMULATED})
    goals = release.read_goals(spec.goals)  # a typo in them must not cost a night
    name = str(flow_run.name)
    with exclusive(settings), refreshing(refresh):
        announce("nightly", name, spec)
        plan = data.find_days(spec)
        with tracked(settings, spec, simulated=plan.simulated) as run:
            made = build_candidate(run, spec, plan)
            champion = release.find_champion(run)
            measured = engines.measure_engines(
                run, made.table, made.split, made.engines, champion, spec.benchmark
            )
            verdict = engines.judge(run, measured, goals, plan.simulated, spec.benchmark.pin)

            version = release.register(run, plan, made.exported, verdict)
            requests = record_requests(
                run, made.table, made.split, made.engines, measured, verdict, version
            )
            repository = str(settings.staging_repository)
            staged = release.stage_candidate(
                run, plan, made.engines, verdict, version, requests, repository
            )
            results = (
                *(plan, made.split, made.rival, made.network),
                *(measured, verdict, version, staged),
            )
            report.publish_outcome(run, *results)
            release.announce_candidate(run, version, verdict)
    seconds = time.monotonic() - started
    return Outcome.of(run, name, *results).model_copy(update={"seconds": seconds})
