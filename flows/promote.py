"""Promotion: evidence, a person's decision, proof in the real server, the swap.

evidence ─ suspended until a person decides ─ infra validation ─ shadow ─ canary ─ swap ─ record

A resumed run executes this body again from the top: what was done before comes back from its steps.
"""

import datetime as dt
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Pause
from prefect.flow_runs import suspend_flow_run
from pydantic import ValidationError

from infra.servers import ServerError
from infra.triton.daemon import serving_url
from model_code.errors import PromotionError
from model_code.repository.audit import account
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.settings import PromotionSpec, Settings
from tasks import opening, proving, swapping, tracking
from tasks.decision import Decision, deadline, problem
from tasks.names import Names
from tasks.promotion_results import Decided, Opened, Promoted, Shown
from tasks.stage import console

GRACE_S = 30 * 86_400  # Prefect's own timeout fails the run; ours, before it, rejects it
DEFAULT = PromotionSpec()


@flow(name="promote", description=__doc__, persist_result=False)
def promote(version: int, started_by: str = "", spec: PromotionSpec = DEFAULT) -> Promoted:
    """Put a staged version into service, once a person approved it and the server proved it.

    Args:
        version: registered and staged.
        started_by: who or what starts it; with four eyes on, not the one who approves it.
        spec: what the candidate must show.
    """
    settings, began = Settings().resolved(), time.monotonic()
    names = Names(settings)
    names.require_answer()
    url = live_server(settings)
    repository = ServingRepository(settings.serving_repository)
    place = str(settings.serving_repository)
    with reported(settings, version) as seen:
        opened = opening.open_promotion(settings, version, started_by or account(), spec)
        seen.append(opened)
        opening.take_over(settings, opened)
        shown = opening.show_evidence(settings, opened)
        decided = decide(settings, opened, shown, spec)
        if decided.verdict == "reject":
            tracking.finish(tracking.client(settings), opened.mlflow_run_id, "FINISHED")
            return Promoted(
                version=version,
                outcome="rejected",
                champion=names.aliases()[0],
                previous=names.aliases()[1],
                decided=decided,
                page_url=shown.page_url,
            )
        with repository.exclusive():
            opening.require_unchanged(settings, opened, shown)
            with proving.candidate_loaded(url, opened):
                validated = proving.validate(url, opened, spec)
                shadow = proving.shadow(url, opened, place, spec)
                canary = proving.canary(url, opened, place, spec)
            opening.require_unchanged(settings, opened, shown)
            swapping.swap(settings, url, opened, shown, decided)
            swapping.record_promotion(
                settings, url, opened, shown, decided, validated, (shadow, canary)
            )
    tracking.finish(tracking.client(settings), opened.mlflow_run_id, "FINISHED")
    champion, previous = names.aliases()
    return Promoted(
        version=version,
        outcome="promoted",
        champion=champion,
        previous=previous,
        decided=decided,
        validated=validated,
        shadow=shadow,
        canary=canary,
        page_url=shown.page_url,
        seconds=time.monotonic() - began,
    )


@flow(name="promotion-timeouts")
def expire() -> int:
    """Reject promotions that nobody decided in time; how many.

    Raises:
        PromotionError: some could not be rejected; the others were.
    """
    count, failed = 0, []
    for run in opening.open_runs():
        try:
            count += _expired(run)
        except Exception as error:  # one that cannot be answered must not keep the others open
            failed.append(f"{run.name}: {error}")
    if failed:
        raise PromotionError(
            f"{len(failed)} promotions could not be rejected: {'; '.join(failed)}",
            remedy="look at them in Prefect's page and cancel them there",
        )
    return count


def _expired(run: FlowRun) -> bool:
    """Reject the promotion if its time is over; whether it was."""
    if run.state is None or not run.state.is_paused() or run.start_time is None:
        return False
    spec = PromotionSpec.model_validate(run.parameters.get("spec") or {})
    if dt.datetime.now(dt.UTC) <= deadline(run.start_time, spec.decision_hours):
        return False
    answer = {"verdict": "reject", "reviewer": "", "reason": "nobody decided in time"}
    with get_client(sync_client=True) as client:
        result = client.resume_flow_run(run.id, run_input=answer)
    if result.status.value != "ACCEPT":
        raise PromotionError(f"Prefect does not resume it: {getattr(result.details, 'reason', '')}")
    console.print(f"  rejected for want of a decision: {run.name}")
    return True


def decide(settings: Settings, opened: Opened, shown: Shown, spec: PromotionSpec) -> Decided:
    """Suspend until there is a decision that counts; bad input is asked for again."""
    until = deadline(opened.opened_at, spec.decision_hours)
    wrong: str | None = None
    for attempt in itertools.count(1):
        console.print(
            f"  waiting for a decision on version {opened.version}, until {until:%F %H:%M} UTC"
        )
        again = f"\n\n**Asked again: {wrong}.**" if wrong else ""
        now = dt.datetime.now(dt.UTC)
        try:
            found = suspend_flow_run(
                wait_for_input=Decision.with_initial_data(description=shown.summary + again),
                timeout=max(60, int((until - now).total_seconds())) + GRACE_S,
                key=f"decision-{opened.version}-{attempt}",
            )
        except ValidationError as error:
            wrong = f"{error.error_count()} fields are wrong"
            continue
        if dt.datetime.now(dt.UTC) > until:
            late = f"nobody decided within {spec.decision_hours:g} h"
            return swapping.settle(settings, opened, shown, _decided("reject", "", late))
        wrong = problem(found.verdict, found.reviewer, found.reason, opened.started_by, settings)
        if wrong is None:
            answer = _decided(found.verdict, found.reviewer.strip(), found.reason.strip())
            return swapping.settle(settings, opened, shown, answer)
        console.print(f"  that does not count: {wrong}")
    raise AssertionError("it is asked for ever")


def live_server(settings: Settings) -> str:
    """The serving Triton server's address, after it answered.

    Raises:
        ServerError: it is not running.
    """
    url = serving_url(settings)
    with TritonClient(url) as client:
        if not client.live():
            raise ServerError(
                "the Triton server does not answer",
                where=url,
                remedy="tickline triton up (it starts where it stopped), then the same command",
            )
    return url


@contextmanager
def reported(settings: Settings, version: int) -> Iterator[list[Opened]]:
    """Write to the audit file and MLflow why a promotion stopped; a suspension is none."""
    seen: list[Opened] = []
    try:
        yield seen
    except Pause:
        raise
    except BaseException as error:
        swapping.stopped(settings, seen[0] if seen else None, version, error)
        raise


def _decided(verdict: str, reviewer: str, reason: str) -> Decided:
    return Decided.model_validate(
        {"verdict": verdict, "reviewer": reviewer, "reason": reason, "at": dt.datetime.now(dt.UTC)}
    )
