"""Every 15 minutes: reject promotions that timed out, start the one that a night still wants.

A night's event starts its promotion at once. Where that event was lost, this flow starts it.
"""

import datetime as dt

from prefect import State, flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Scheduled

from infra.triton.daemon import live_server
from infra.triton.targets import serving_settings
from model_code.errors import PromotionError, TicklineError
from model_code.repository.policy import PolicyFile, policy_path
from model_code.settings import PromotionSpec, Settings
from tasks.promotion.decide import deadline
from tasks.promotion.promotion_runs import open_runs
from tasks.promotion.swap import share
from tasks.runs.aliases import Aliases
from tasks.runs.console import console
from tasks.runs.names import timed_name
from tasks.runs.outbox import start_due


@flow(name="promotions-due", flow_run_name=timed_name, description=__doc__)
def promotions_due() -> list[str]:
    """Reject promotions whose approval timed out; start the newest one that is still wanted.

    Returns:
        What was done, and what waits and why, one line each.

    Raises:
        PromotionError: some could not be rejected; everything else was done.
        RegistryDownError: MLflow does not answer; what timed out was rejected.
    """
    settings = Settings().resolved()
    share(settings)
    done, failed = _reject_late()
    try:
        Aliases(settings).require_answer()
        done += start_due(settings, _obstacles(settings))
    finally:
        for line in done:
            console.print(f"  {line}", markup=False)
    if failed:
        raise PromotionError(
            f"{len(failed)} promotions could not be rejected: {'; '.join(failed)}",
            remedy="cancel them in Prefect's page",
        )
    return done


def _obstacles(settings: Settings) -> list[str]:
    """Why every promotion would fail now."""
    found = []
    try:
        live_server(serving_settings(settings))
    except TicklineError as error:
        found.append(error.what)
    if not policy_path(settings.serving_repository).exists():
        found.append("there is no policy: tickline policy init")
    return found


def _reject_late() -> tuple[list[str], list[str]]:
    """What was rejected, and what could not be."""
    done, failed = [], []
    for run in open_runs():
        try:
            if _expired(run):
                done.append(f"rejected, approval timed out: {run.name}")
        except Exception as error:  # one failure must not keep the others open
            failed.append(f"{run.name}: {error}")
    return done, failed


def _expired(run: FlowRun) -> bool:
    """Reject the promotion if its approval timed out; return whether it did."""
    if run.state is None or not run.state.is_paused() or run.start_time is None:
        return False
    asked = PromotionSpec.model_validate(run.parameters.get("spec") or {})
    spec = PolicyFile.load(Settings().resolved().serving_repository).policy.asked(asked)
    if dt.datetime.now(dt.UTC) <= deadline(run.start_time, spec.decision_hours):
        return False
    # without an answer, as nobody gave one: after its deadline the promotion rejects itself
    with get_client(sync_client=True) as client:
        state: State[None] = Scheduled(name="Resuming")
        result = client.set_flow_run_state(run.id, state)
    if result.status.value != "ACCEPT":
        raise PromotionError(f"Prefect did not resume it: {getattr(result.details, 'reason', '')}")
    return True
