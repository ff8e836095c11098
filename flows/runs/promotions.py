"""Start, decide and go on with promotions from the command line.

A promotion is a run of the deployment `promote/promote`: only such a run can be suspended. It is
worked on in this process until it waits or ends; a decision resumes it here too, unless a worker is
there to take it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.runs.local import connected
from infra.services import POOL
from model_code.errors import ConfigError, PromotionError
from model_code.settings import PromotionSpec, Settings

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun, State

    from model_code.repository.audit import AuditRecord
    from tasks.promotion.records import Promoted, RolledBack

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENT = "promote/promote"
# a promotion that ended with one of these is not gone on with
VOID = {"PromotionError", "CanaryStoppedError", "IntegrityError"}


def start(
    settings: Settings, version: int | None, started_by: str, spec: PromotionSpec
) -> "Promoted | FlowRun":
    """Begin a promotion, or go on with one that was approved and then failed or was killed.

    Args:
        version: None for the newest staged one.

    Returns:
        The outcome, or the run that waits for a decision; nothing is begun where it serves.

    Raises:
        TicklineError: it may not begin, or it stopped.
    """
    from model_code.repository.staging import staged_versions

    known = staged_versions(settings.staging_repository)
    if not known:
        raise PromotionError(
            "nothing is staged",
            where=str(settings.staging_repository),
            remedy="tickline nightly --data PATH stages a candidate",
        )
    version = known[-1] if version is None else version
    with connected(settings):
        from prefect import get_client
        from prefect.states import Pending

        from infra.triton.daemon import live_server
        from tasks.promotion.aliases import Aliases
        from tasks.promotion.records import Promoted

        live_server(settings)  # the first thing a person can do something about
        deployment = _deployed()
        unfinished = _unfinished(settings, version)
        if unfinished is None:
            names = Aliases(settings)
            names.require_answer()
            champion, previous = names.aliases()
            if champion == version:
                return Promoted(
                    version=version,
                    outcome="already serving",
                    champion=champion,
                    previous=previous,
                    decided=None,
                )
        with get_client(sync_client=True) as client:
            if unfinished is not None:
                state: State[Any] = Pending(message="tickline promote")
                client.set_flow_run_state(unfinished.id, state, force=True)
                return _work_on(client.read_flow_run(unfinished.id))
            parameters = {
                "version": version,
                "started_by": started_by,
                "spec": spec.model_dump(mode="json"),
            }
            run = client.create_flow_run_from_deployment(
                deployment, parameters=parameters, state=Pending(message="tickline promote")
            )
        return _work_on(run)


def decide(
    settings: Settings, which: str, verdict: str, reviewer: str, reason: str
) -> "Promoted | FlowRun | None":
    """Hand a decision to the promotion that waits for it.

    Args:
        which: version, or the run's name or id.

    Returns:
        The outcome; the run, if it waits again; None where a worker goes on with it.

    Raises:
        ConfigError: no such promotion waits.
        PromotionError: the decision does not count; nothing was resumed.
        TicklineError: the promotion stopped.
    """
    with connected(settings):
        from prefect import get_client
        from prefect.states import Pending

        from infra.triton.daemon import live_server
        from tasks.promotion.aliases import Aliases
        from tasks.promotion.decide import problem

        run = _waiting(which)
        started_by = str(run.parameters.get("started_by") or "")
        wrong = problem(verdict, reviewer, reason, started_by, settings)
        if wrong is not None:
            raise PromotionError(
                f"the decision does not count: {wrong}",
                where=f"promotion {run.name}",
                remedy="nothing was resumed; decide again (docs/promotion.md says who may)",
            )
        worker = _worker_online()
        if not worker and not _records(settings, run):
            raise PromotionError(
                f"promotion {run.name} was begun in another home, and no worker is there to go on",
                where=str(settings.home),
                remedy="decide where it was begun, or start its worker: tickline worker",
            )
        Aliases(settings).require_answer()  # or the run would fail as soon as it goes on
        live_server(settings)
        answer = {"verdict": verdict, "reviewer": reviewer, "reason": reason}
        with get_client(sync_client=True) as client:
            result = client.resume_flow_run(run.id, run_input=answer)
            if result.status.value != "ACCEPT":
                why = getattr(result.details, "reason", "")
                raise PromotionError(f"Prefect does not resume {run.name}: {why}")
            if worker:
                return None
            state: State[Any] = Pending(message=f"tickline {verdict}")
            client.set_flow_run_state(run.id, state, force=True)
            return _work_on(client.read_flow_run(run.id))


def roll_back(settings: Settings, to: int | None, by: str, reason: str) -> "RolledBack":
    """Run the rollback flow here.

    Raises:
        TicklineError: it did not come about.
    """
    with connected(settings):
        from flows.rollback import rollback

        return rollback(to, by, reason)


def _work_on(run: "FlowRun") -> "Promoted | FlowRun":
    from prefect import get_client
    from prefect.exceptions import Pause
    from prefect.flow_engine import run_flow

    from flows.promote import promote

    parameters = promote.validate_parameters(run.parameters)
    try:
        outcome: Promoted = run_flow(promote, flow_run=run, parameters=parameters)  # type: ignore[assignment]
    except Pause:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(run.id)
    return outcome


def _deployed() -> "UUID":
    """Id of the promotion's deployment; made here where prefect.yaml was never deployed."""
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


def _waiting(which: str) -> "FlowRun":
    from tasks.promotion.promotion_runs import open_runs

    paused = [run for run in open_runs() if run.state is not None and run.state.is_paused()]
    for run in reversed(paused):
        if which in {run.name, str(run.id), str(run.parameters.get("version"))}:
            return run
    names = ", ".join(f"{run.parameters.get('version')} ({run.name})" for run in paused)
    raise ConfigError(
        f"no promotion of {which} waits for a decision",
        remedy=f"waiting: {names}" if names else "start one: tickline promote --version N",
    )


def _unfinished(settings: Settings, version: int) -> "FlowRun | None":
    """The newest run of the version, if it failed or was killed and may go on as it is.

    Not one whose approval is void or whose candidate broke a goal: that needs a new decision.

    Raises:
        PromotionError: it is at work in another process.
    """
    from model_code.repository.serving import ServingRepository
    from tasks.promotion.promotion_runs import newest_run

    run = newest_run(version)
    if run is None or run.state is None or run.start_time is None:
        return None
    if run.state.is_completed() or run.state.is_paused() or run.state.is_cancelled():
        return None
    with ServingRepository(settings.serving_repository).exclusive():
        pass  # one that was killed still reads RUNNING in Prefect; the lock tells
    own = _records(settings, run)
    void = any(record.event == "stopped" and record.facts.get("kind") in VOID for record in own)
    return run if own and not void else None


def _records(settings: Settings, run: "FlowRun") -> "list[AuditRecord]":
    """What this home's audit file says of a run; nothing, if it was begun in another home."""
    from model_code.repository.audit import AuditLog

    found = AuditLog(settings.audit_file).read()
    return [record for record in found if record.facts.get("flow_run_id") == str(run.id)]


def _worker_online() -> bool:
    from prefect import get_client
    from prefect.client.schemas.objects import WorkerStatus

    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(POOL)
    return any(worker.status == WorkerStatus.ONLINE for worker in workers)
