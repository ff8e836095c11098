"""Promotion: evidence, a reviewer's decision, validation on the real server, the swap.

open promotion ─ show evidence ─ decide (suspended until a reviewer answers) ─ infra validation
                                         record ─ swap ─ canary ─ shadow ───────────┘

A resumed run executes this body again from the top: finished steps return their stored results.
"""

import datetime as dt
import itertools
import time

from prefect import State, flow
from prefect.flow_runs import suspend_flow_run
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import ValidationError

from infra.leases.promotion import own_promotion
from infra.triton.daemon import live_server
from infra.triton.targets import of_policy
from model_code.repository.audit import account
from model_code.repository.lease import PromotionRunningError
from model_code.repository.policy import PolicyFile
from model_code.repository.serving import ServingRepository
from model_code.settings import PromotionSpec, Settings
from model_code.settings.targets import below_majority
from model_code.storage.serving import refuse_elsewhere, require_here
from tasks.promotion.canary import canary
from tasks.promotion.decide import Decision, deadline, decide, form_of, form_text, problem
from tasks.promotion.infra_validation import candidate_loaded, infra_validation
from tasks.promotion.open_promotion import is_own, open_promotion, take_over
from tasks.promotion.record import record, require_owner, stop_recorded
from tasks.promotion.records import Decided, Opened, Promoted, Shown
from tasks.promotion.shadow import shadow
from tasks.promotion.show_evidence import require_unchanged, show_evidence
from tasks.promotion.swap import share, swap
from tasks.promotion.targets import behind_now
from tasks.runs import mlflow_runs
from tasks.runs.aliases import Aliases
from tasks.runs.console import console
from tasks.runs.lifecycle import logged
from tasks.runs.outbox import BY_NIGHT, is_opened
from tasks.runs.page import say
from tasks.runs.serving_version import serving_version

GRACE_S = 30 * 86_400  # Prefect's own timeout fails the run; our earlier deadline rejects it
DEFAULT = PromotionSpec()


@flow(
    name="promote",
    flow_run_name="promote v{version}",
    description=__doc__,
    persist_result=False,
)
@logged
def promote(
    version: int, started_by: str = "", spec: PromotionSpec = DEFAULT
) -> Promoted | State[None]:
    """Promote a staged version after approval and validation on the real server.

    Args:
        version: registered and staged.
        started_by: who or what starts it; with four eyes on, another person must approve.
        spec: what the candidate must fulfil, where it differs from the policy's limits.

    Returns:
        The outcome, or the state Skipped if a nightly started it and another run had opened it.
    """
    settings = Settings().resolved()
    refuse_elsewhere(settings)
    # the event and the outbox may both have started one; only one of them is opened
    automatic = started_by == BY_NIGHT and not is_own(settings)
    try:
        with own_promotion(settings, version, str(flow_run.name), str(flow_run.id)):
            if automatic and is_opened(settings, version):
                return _skipped(f"version {version} has had its promotion")
            return _promote(settings, version, started_by or account(), spec)
    except PromotionRunningError as error:
        if not automatic:
            raise
        return _skipped(error.what)


def _skipped(why: str) -> State[None]:
    return Completed(name="Skipped", message=f"Skipped: {why}")


def _promote(settings: Settings, version: int, started_by: str, spec: PromotionSpec) -> Promoted:
    began, repository = time.monotonic(), str(settings.serving_repository)
    with stop_recorded(settings, version) as seen:
        serving = ServingRepository(settings.serving_repository)
        serving.fence.require_level()
        policy = PolicyFile.load(settings.serving_repository)
        settings, spec = of_policy(settings, policy), policy.policy.asked(spec)
        Aliases(settings).require_answer()
        url = live_server(settings)
        require_here(settings)
        share(settings)  # who decides on another host reads the policy from the store
        if risk := below_majority(settings.needed_targets, max(1, len(settings.targets))):
            console.print(f"  [yellow]warning[/]: {risk}")
        opened = open_promotion(settings, version, started_by, spec, policy)
        seen.append(opened)
        opened = take_over(settings, opened)
        ServingRepository(settings.serving_repository, opened.epoch).fence.require()
        shown = show_evidence(settings, opened, spec, policy)
        for line in shown.loosened:
            console.print(f"  [bold red]loosened[/]: {line}")
        decided = await_decision(settings, opened, shown, spec, policy)
        if decided.verdict == "reject":
            return _finished(settings, opened, shown, Promoted.rejected(opened, decided))
        with serving.exclusive():
            require_owner(settings, opened)
            require_unchanged(settings, opened, shown)
            with candidate_loaded(settings, url, opened):
                validated = infra_validation(url, opened, spec)
                mirrored = shadow(url, opened, repository, spec)
                stepped = canary(url, opened, repository, spec, mirrored)
            require_unchanged(settings, opened, shown)
            swap(settings, opened, shown, decided)
            record(settings, url, opened, shown, decided, validated, (mirrored, stepped))
    outcome = Promoted(
        version=version,
        outcome="promoted",
        decided=decided,
        validated=validated,
        shadow=mirrored,
        canary=stepped,
        seconds=time.monotonic() - began,
        behind=behind_now(settings),
    )
    return _finished(settings, opened, shown, outcome)


def _finished(settings: Settings, opened: Opened, shown: Shown, outcome: Promoted) -> Promoted:
    """End the MLflow run; return the outcome with the serving version and its predecessor."""
    mlflow_runs.finish(mlflow_runs.client(settings), opened.mlflow_run_id, "FINISHED")
    found = serving_version(settings)
    say(f"{outcome.outcome}: version {found.version} serves")
    say(f"MLflow run: {shown.run_url}; evidence: {shown.page_url}")
    serving = {"champion": found.version, "previous": found.previous, "page_url": shown.page_url}
    return outcome.model_copy(update=serving)


def await_decision(
    settings: Settings, opened: Opened, shown: Shown, spec: PromotionSpec, policy: PolicyFile
) -> Decided:
    """Suspend until there is a valid decision; ask again after invalid input."""
    until = deadline(opened.opened_at, spec.decision_hours)
    wrong: str | None = None
    form = form_of(policy.policy.reviewers, exception=bool(shown.exceptions))
    for attempt in itertools.count(1):
        waiting = f"waiting for a decision on version {opened.version}, until {until:%F %H:%M} UTC"
        console.print(f"  {waiting}")
        say(f"{waiting}: tickline approve {opened.version}, or tickline reject {opened.version}")
        text = form_text(opened.version, shown, policy.policy.signatures, wrong)
        now = dt.datetime.now(dt.UTC)
        try:
            found = suspend_flow_run(
                wait_for_input=form.with_initial_data(description=text),
                timeout=max(60, int((until - now).total_seconds())) + GRACE_S,
                key=f"decision-{opened.version}-{attempt}",
            )
        except ValidationError as error:  # also without an answer, see flows/promotions_due.py
            found = None
            wrong = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
        if dt.datetime.now(dt.UTC) > until:
            late = f"approval timed out after {spec.decision_hours:g} h"
            return decide(settings, opened, shown, _decided("reject", "", late))
        if found is not None:
            wrong = problem(found, shown.subject(opened, str(flow_run.id)), policy)
            if wrong is None:
                return decide(settings, opened, shown, _answered(found, policy))
        console.print(f"  the decision does not count: {wrong}")
    raise AssertionError("unreachable: the loop never ends")


def _answered(found: Decision, policy: PolicyFile) -> Decided:
    return _decided(
        found.verdict,
        found.reviewer.strip(),
        found.reason.strip(),
        owner=found.owner.strip(),
        expires=found.expires.strip(),
        signed=found.signed,
        signature=found.signature,
        signatures=policy.policy.signatures,
    )


def _decided(verdict: str, reviewer: str, reason: str, **more: str) -> Decided:
    answer = {"verdict": verdict, "reviewer": reviewer, "reason": reason}
    return Decided.model_validate({**answer, "at": dt.datetime.now(dt.UTC), **more})
