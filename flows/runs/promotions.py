"""Start, decide and resume promotions from the command line.

A promotion is a run of the deployment `promote/promote`, because Prefect can suspend only deployed
runs. It runs in this process until it suspends or ends. A decision resumes it here, unless a worker
is online to take it.
"""

import datetime as dt
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.runs.local import connected
from infra.services import POOL, SERVING_QUEUE
from infra.triton.targets import of_policy, serving_settings
from model_code.errors import ConfigError, PromotionError, TicklineError
from model_code.repository.policy import PolicyFile
from model_code.repository.signatures import sign
from model_code.settings import PromotionSpec, Settings
from model_code.storage.serving import follow_serving, refuse_elsewhere, share_serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun, State

    from model_code.repository.audit import AuditRecord
    from model_code.repository.decisions import Subject, Word
    from tasks.promotion.records import Promoted, RolledBack

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENT = "promote/promote"
HAND_OVER_S = 3600.0
POLLED = dt.timedelta(seconds=60)  # a worker asks for runs every 15 s
# a promotion that ended with one of these is not resumed
VOID = {"PromotionError", "CanaryStoppedError", "IntegrityError", "FencedError"}
EMERGENCY = "without MLflow, Prefect and the lock: tickline rollback --emergency --reason TEXT"


def start(
    settings: Settings, version: int | None, started_by: str, spec: PromotionSpec
) -> "Promoted | FlowRun":
    """Start a promotion, or resume one that failed or was killed after its approval.

    Args:
        version: None for the newest staged one.

    Returns:
        The outcome, or the run that waits for a decision. If the version already serves, nothing
        is started.

    Raises:
        PromotionRunningError: another process runs a promotion of this version.
        TicklineError: the promotion was refused, or it stopped.
    """
    from infra.leases.promotion import own_promotion
    from model_code.repository.serving import ServingRepository
    from model_code.storage.staged import fetch_all_staged

    elsewhere = follow_serving(settings)
    known = fetch_all_staged(settings)
    if not known:
        raise PromotionError(
            "nothing is staged",
            where=str(settings.staging_repository),
            remedy="stage a candidate: tickline nightly --data PATH",
        )
    version = known[-1] if version is None else version
    policy = PolicyFile.load(settings.serving_repository)
    policy.require_within(policy.policy.asked(spec))
    named = of_policy(settings, policy)
    serving = ServingRepository(settings.serving_repository)
    if elsewhere:
        return _hand_over(settings, DEPLOYMENT, _parameters(version, started_by, spec))
    with connected(settings), own_promotion(settings, version):
        from prefect import get_client
        from prefect.states import Pending

        from infra.triton.daemon import live_server
        from tasks.promotion.records import Promoted
        from tasks.runs.aliases import Aliases
        from tasks.runs.serving_version import serving_version

        live_server(named)  # first: the user can start it
        serving.fence.require_level()
        deployment = deployment_id()
        unfinished = _find_resumable(settings, version, policy)
        if unfinished is None:
            Aliases(settings).require_answer()
            found = serving_version(settings)
            if found.version == version:
                return Promoted(
                    version=version,
                    outcome="already serving",
                    champion=found.version,
                    previous=found.previous,
                    decided=None,
                )
        with get_client(sync_client=True) as client:
            if unfinished is not None:
                state: State[Any] = Pending(message="tickline promote")
                client.set_flow_run_state(unfinished.id, state, force=True)
                return _run_here(client.read_flow_run(unfinished.id))
            run = client.create_flow_run_from_deployment(
                deployment,
                parameters=_parameters(version, started_by, spec),
                state=Pending(message="tickline promote"),
            )
        return _run_here(run)


def decide(
    settings: Settings,
    which: str,
    verdict: "Word",
    reviewer: str,
    reason: str,
    *,
    owner: str = "",
    expires: str = "",
    key: Path | None = None,
    agree: "Callable[[Subject, str], bool]" = lambda *_: True,
) -> "Promoted | FlowRun | None":
    """Pass a decision to the promotion that waits for it.

    Args:
        which: version, or the run's name or id.
        owner: of the exception, if the approval is one.
        expires: the exception's last day, ISO 8601.
        key: of the reviewer, to sign with; None: no signature.
        agree: gets what the decision is about and the text to sign; False: it is not signed.

    Returns:
        The outcome; the run, if it waits again; None if a worker will resume it.

    Raises:
        ConfigError: no such promotion waits.
        PromotionError: the decision does not count; nothing was resumed.
        PromotionRunningError: another process runs a promotion of this version.
        TicklineError: the promotion stopped.
    """
    elsewhere = follow_serving(settings)
    policy = PolicyFile.load(settings.serving_repository)
    named = of_policy(settings, policy)
    with connected(settings):
        from prefect import get_client
        from prefect.states import Pending

        from infra.leases.promotion import own_promotion
        from infra.triton.daemon import live_server
        from tasks.promotion.decide import Decision, problem, text_of
        from tasks.runs.aliases import Aliases

        run = _find_waiting(which)
        subject = subject_of(run)
        decision = Decision(
            verdict=verdict, reviewer=reviewer, reason=reason, owner=owner, expires=expires
        )
        if key is not None:
            text = text_of(decision, subject)
            if not agree(subject, text):
                raise PromotionError(
                    "the decision was not signed; nothing was resumed",
                    where=f"{run.name}",
                )
            signed = {"signed": text, "signature": sign(text, key)}
            decision = decision.model_copy(update=signed)
        wrong = problem(decision, subject, policy)
        if wrong is not None:
            raise PromotionError(
                f"the decision does not count: {wrong}",
                where=f"{run.name}",
                remedy="nothing was resumed; decide again (docs/promotion.md says who may)",
            )
        worker = _worker_takes(settings) if elsewhere else _worker_online()
        if not worker and not _records(settings, run):
            raise PromotionError(
                f"{run.name} was started in another home folder, and no worker is online",
                where=str(settings.home),
                remedy="decide in that home folder, or start its worker: tickline worker",
            )
        Aliases(settings).require_answer()  # otherwise the resumed run would fail at once
        if not elsewhere:
            live_server(named)
        with (
            own_promotion(settings, int(run.parameters["version"]), run.name, str(run.id)),
            get_client(sync_client=True) as client,
        ):
            result = client.resume_flow_run(run.id, run_input=decision.model_dump())
            if result.status.value != "ACCEPT":
                why = getattr(result.details, "reason", "")
                raise PromotionError(f"Prefect did not resume {run.name}: {why}")
            if worker:
                return None
            state: State[Any] = Pending(message=f"tickline {verdict}")
            client.set_flow_run_state(run.id, state, force=True)
            return _run_here(client.read_flow_run(run.id))


def subject_of(run: "FlowRun") -> "Subject":
    """Return what the decision on a waiting promotion is about, as it was shown.

    Raises:
        PromotionError: the run did not show it.
    """
    from prefect import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        ArtifactFilterKey,
    )

    from model_code.repository.decisions import Subject
    from tasks.promotion.show_evidence import SUBJECT

    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=[SUBJECT])
    )
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=wanted)
    try:
        rows = json.loads(str(found[-1].data))
        return Subject.model_validate({row["fact"]: row["value"] for row in rows})
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise PromotionError(
            f"{run.name} does not say what it is about: it has no readable artefact {SUBJECT}",
            where=f"{run.name}",
            remedy="reject or cancel it in Prefect's page, then start it again: tickline promote",
        ) from error


def roll_back(settings: Settings, to: int | None, by: str, reason: str) -> "RolledBack":
    """Run the rollback flow here, or let the serving host's worker run it.

    Raises:
        TicklineError: the rollback failed. Where an emergency rollback would not need what is
            missing, the message names it.
    """
    from infra.triton.daemon import live_server

    if follow_serving(settings):
        return _roll_back_elsewhere(settings, {"to": to, "by": by, "reason": reason})
    live_server(serving_settings(settings))  # an emergency rollback needs it too
    with naming_emergency(), connected(settings):
        from flows.rollback import rollback

        return rollback(to, by, reason)


def level_emergencies(settings: Settings, say: Callable[[str], None]) -> None:
    """Make emergency rollbacks known to the audit file, MLflow and Prefect; say what was done.

    Raises:
        RepositoryBusyError: a promotion or rollback holds the lock.
        TicklineError: one was interrupted, or a server does not answer; the same call continues.
    """
    from infra.servers import environment
    from model_code.repository.serving import ServingRepository

    repository = ServingRepository(settings.serving_repository)
    if not repository.fence.not_level():
        return
    os.environ.update(environment(settings))  # before MLflow is imported
    from tasks.promotion import level

    with repository.exclusive():
        found = repository.fence.not_level()
        level.require_complete(repository, found)
        for line in level.level_audit(settings, found):
            say(line)
        for line in level.level_registry(settings, found):
            say(line)
        with connected(settings):
            for line in level.level_runs(found):
                say(line)
        level.finish(repository, found)
        if problem := share_serving(settings):
            say(f"{problem}; promotions-due copies the serving repository within 15 minutes")
    say(f"level: version {found[-1].version} serves, and MLflow, Prefect and audit file say so")


@contextmanager
def naming_emergency() -> Iterator[None]:
    """Add the emergency command to an error of Prefect, MLflow or the lock of promotions."""
    from infra.servers import ServerError
    from model_code.repository.serving import RepositoryBusyError

    try:
        yield
    except (ServerError, RepositoryBusyError) as error:
        raise _with_emergency(error) from error
    except PromotionError as error:
        from tasks.runs.aliases import RegistryDownError

        if not isinstance(error, RegistryDownError):
            raise
        raise _with_emergency(error) from error
    except TicklineError:
        raise
    except Exception as error:
        # MLflow's, Prefect's and their HTTP libraries' own, while the rollback ran
        failed = ServerError(
            f"a server failed during the rollback: {type(error).__name__}: {error}",
            remedy="tickline predict shows what serves. Start the server (tickline up, or its own "
            "service), then run the same command",
        )
        raise _with_emergency(failed) from error


def _with_emergency(error: TicklineError) -> TicklineError:
    remedy = f"{error.remedy}. {EMERGENCY}" if error.remedy else EMERGENCY
    return type(error)(error.what, where=error.where, remedy=remedy)


def _run_here(run: "FlowRun") -> "Promoted | FlowRun":
    from prefect import get_client
    from prefect.exceptions import Pause
    from prefect.flow_engine import run_flow

    from flows.promote import promote
    from tasks.promotion.records import Promoted

    parameters = promote.validate_parameters(run.parameters)
    try:
        outcome = run_flow(promote, flow_run=run, parameters=parameters)
    except Pause:
        outcome = None
    if isinstance(outcome, Promoted):
        return outcome
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


def deployment_id() -> "UUID":
    """Return the id of the promotion's deployment; create it if prefect.yaml is not deployed."""
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.utilities.callables import parameter_schema

    from flows.promote import promote
    from infra.deploy import make_pool

    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(DEPLOYMENT).id
        except ObjectNotFound:
            pass
        make_pool(client)
        return client.create_deployment(
            flow_id=client.create_flow(promote),
            name=promote.name,
            work_pool_name=POOL,
            entrypoint="flows/promote.py:promote",
            pull_steps=[
                {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
            ],
            parameter_openapi_schema=parameter_schema(promote).model_dump_for_openapi(),
        )


def _find_waiting(which: str) -> "FlowRun":
    from tasks.promotion.promotion_runs import open_runs
    from tasks.runs.names import is_called

    paused = [run for run in open_runs() if run.state is not None and run.state.is_paused()]
    for run in reversed(paused):
        if which == str(run.parameters.get("version")) or is_called(run, which):
            return run
    names = ", ".join(str(run.parameters.get("version")) for run in paused)
    raise ConfigError(
        f"no promotion of {which} waits for a decision",
        remedy=f"waiting: {names}" if names else "start one: tickline promote --version N",
    )


def _find_resumable(settings: Settings, version: int, policy: PolicyFile) -> "FlowRun | None":
    """Return the version's newest run of this home if it failed or was killed and can be resumed.

    A run with a void approval, of another policy or with a broken goal is not resumed: it needs a
    new decision. So does a failed one whose stop is not in the audit file: nobody knows whether its
    approval is void. The caller owns the version, so a run that still reads RUNNING was killed.
    """
    from tasks.promotion.promotion_runs import runs_of
    from tasks.runs.console import console

    run = next((run for run in runs_of(version) if _records(settings, run)), None)
    if run is None or run.state is None or run.start_time is None:
        return None
    if run.state.is_completed() or run.state.is_paused() or run.state.is_cancelled():
        return None
    own = _records(settings, run)
    stops = [one.facts for one in own if one.event == "stopped"]
    changed = any(
        one.event == "started" and one.facts.get("policy_sha256") != policy.sha256 for one in own
    )
    if changed or any(facts.get("kind") in VOID for facts in stops):
        return None
    last = run.run_count
    # an earlier Tickline wrote no attempt
    if run.state.is_failed() and all(facts.get("attempt", last) != last for facts in stops):
        console.print(
            f"  {run.name} failed and its stop is not in the audit file: "
            "its approval is void, and a new promotion starts"
        )
        return None
    return run


def _records(settings: Settings, run: "FlowRun") -> "list[AuditRecord]":
    """Return the run's records in this home's audit file; none if it was started elsewhere."""
    from model_code.repository.audit import AuditLog

    found = AuditLog.of(settings).read()
    return [record for record in found if record.facts.get("flow_run_id") == str(run.id)]


def _parameters(version: int, started_by: str, spec: PromotionSpec) -> dict[str, Any]:
    given = spec.model_dump(mode="json", exclude_unset=True)
    return {"version": version, "started_by": started_by, "spec": given}


def _hand_over(settings: Settings, deployment: str, parameters: dict[str, Any]) -> "FlowRun":
    """Let the serving host's worker run a deployment; return once it waits or has ended.

    Raises:
        OtherHostError: no such worker is online.
        PromotionError: the run failed, or it has not ended for an hour.
    """
    with connected(settings):
        from prefect import get_client

        _worker_takes(settings)
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(deployment).id
            run = client.create_flow_run_from_deployment(found, parameters=parameters)
            last = time.monotonic() + HAND_OVER_S
            while time.monotonic() < last:
                run = client.read_flow_run(run.id)
                state = run.state
                if state is not None and (state.is_paused() or state.is_completed()):
                    return run
                if state is not None and state.is_final():
                    break
                time.sleep(1.0)
    raise PromotionError(
        f"{run.name} did not complete on the serving host: {run.state_name}",
        where=str(run.state.message if run.state else ""),
        remedy=f"see why: tickline why {run.name}",
    )


def _roll_back_elsewhere(settings: Settings, parameters: dict[str, Any]) -> "RolledBack":
    from tasks.promotion.records import RolledBack
    from tasks.runs.serving_version import serving_version

    began = time.monotonic()
    run = _hand_over(settings, "rollback/rollback", parameters)
    follow_serving(settings)
    with connected(settings):
        facts = _records(settings, run)[-1].facts
        return RolledBack.model_validate(
            {
                "version": facts["version"],
                "from_version": facts["from"],
                "previous": serving_version(settings).previous,
                "seconds": time.monotonic() - began,
                "behind": facts.get("behind", {}),
            }
        )


def _worker_takes(settings: Settings) -> bool:
    """Check that a worker polls the queue that only the serving host's workers poll.

    Raises:
        OtherHostError: none does.
    """
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    polled = None
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        polled = client.read_work_queue_by_name(SERVING_QUEUE, POOL).last_polled
    if polled is None or dt.datetime.now(dt.UTC) - polled > POLLED:
        refuse_elsewhere(settings)
    return True


def _worker_online() -> bool:
    from prefect import get_client
    from prefect.client.schemas.objects import WorkerStatus

    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(POOL)
    return any(worker.status == WorkerStatus.ONLINE for worker in workers)
