"""The nightly retraining: from ticks to a judged, staged candidate. Nothing goes live here.

find days ─ validate ─ find leaders ─ features ─ feature table ─ split ─┐
┌───────────────────────────────────────────────────────────────────────┘
├─ baseline ──────┐
└─ train ─ export ┴ choose model ─┐
┌─────────────────────────────────┘
├─ attribute
└─ build engine ─┬─ benchmark ─ gate ─ register ─ record requests ─ stage candidate ─ announce
 find champion ──┘

Each of the night's models is trained and exported; one is chosen, explained and built.
"""

import time

from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.candidate import build_candidate, explain_candidate, judge_candidate
from flows.runs.outcome import Outcome, print_resume, print_start
from flows.runs.schedule import reason_to_skip
from model_code.repository.terms import Terms
from model_code.settings import NightlySpec, Settings
from tasks.caching.refresh import refreshing
from tasks.monitoring.report import publish_outcome
from tasks.nightly.announce import announce
from tasks.nightly.find_champion import find_champion
from tasks.nightly.find_days import SIMULATED, find_days, require_market
from tasks.nightly.gate import read_goals
from tasks.nightly.record_requests import record_requests
from tasks.nightly.records import NightResult
from tasks.nightly.register import register
from tasks.nightly.stage_candidate import stage_candidate
from tasks.runs.console import console
from tasks.runs.lifecycle import exclusive, tracked
from tasks.runs.names import rename, start_name
from tasks.runs.page import say
from tasks.validation.as_of import seen_by


@flow(name="nightly", flow_run_name=start_name, description=__doc__, persist_result=False)
def nightly(
    spec: NightlySpec, refresh: bool = False, as_of: str | None = None
) -> Outcome | State[None]:
    """Retrain on the store's newest days and judge on the newest.

    Args:
        spec: what to compute; the store defaults to TICKLINE_MARKET, else the simulated market.
        refresh: ignore results from before this run; a rerun of it uses its own.
        as_of: name or id of an earlier night: use the ticks that it saw, whatever the market's
            files hold now.

    Returns:
        The outcome, or the state Skipped if the schedule started a run that is not due.
    """
    skip = reason_to_skip(spec)
    if skip:
        return Completed(name="Skipped", message=f"Skipped: {skip}")
    settings, started = Settings().resolved(), time.monotonic()
    spec = spec.model_copy(update={"market": spec.market or settings.market or SIMULATED})
    goals = read_goals(spec.goals)  # first: a typo must fail before any computation
    seen = seen_by(settings, as_of, spec) if as_of else None
    if seen is None:
        require_market(str(spec.market))
    with exclusive(settings), refreshing(refresh):
        print_start("nightly", spec)
        if seen:
            console.print(f"ticks: as MLflow run {seen.run} saw them")
        plan = seen.plan if seen else find_days(spec, settings.home)
        rename(f"nightly {plan.test_date}")
        print_resume(str(flow_run.name))
        with tracked(settings, spec, simulated=plan.simulated) as run:
            start = find_champion(run, weights=True) if spec.starts_from_champion else None
            candidate = build_candidate(run, spec, plan, start, seen)
            attributed = explain_candidate(run, spec, candidate)
            champion = find_champion(run, anchor_nights=spec.benchmark.anchor_nights)
            measured, judged = judge_candidate(run, spec, plan, candidate, champion, goals)
            terms = Terms.of(candidate.features, spec.split)
            version = register(
                run,
                plan,
                candidate.table,
                candidate.exported,
                candidate.network.threshold,
                judged,
                candidate.model.network,
                candidate.model.training,
                candidate.network.model,
                candidate.split,
                terms,
            )
            requests = record_requests(
                run,
                candidate.table,
                candidate.split,
                candidate.engines,
                measured,
                judged,
                version,
            )
            repository = settings.inside(settings.staging_repository)
            staged = stage_candidate(
                run,
                plan,
                candidate.table,
                candidate.engines,
                candidate.network.threshold,
                judged,
                version,
                requests,
                repository,
                spec.serving,
                terms,
            )
            result = NightResult(
                plan=plan,
                candidate=candidate,
                measured=measured,
                judged=judged,
                registered=version,
                staged=staged,
                attributed=attributed,
            )
            publish_outcome(run, result)
            announce(run, version, judged)
            seconds = time.monotonic() - started
            outcome = Outcome.of(run, str(flow_run.name), result, seconds=seconds)
            say(outcome.line)
    return outcome
