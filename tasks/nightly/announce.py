"""Stage `announce`: emit the event `gate passed`, which starts the promotion."""

from prefect.events import emit_event

from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import Judged, Registered
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import want_promotion

GATE_PASSED = "tickline.gate.passed"


def _facts(_: RunRef, sent: bool) -> str:
    return "promotion asked for" if sent else "no promotion: the candidate is not promotable"


@stage("announce", facts=_facts)
def announce(run: RunRef, registered: Registered | None, judged: Judged) -> bool:
    """Emit the event for a promotable candidate; return whether it was emitted.

    The deployment `promote` is triggered by it. The event is emitted once per candidate: a cached
    stage emits nothing. A model of simulated data is never announced. The version's tag `promotion`
    is set first: if the event is lost, `promotions-due` starts the promotion.
    """
    if registered is None or not judged.verdict.promotable:
        return False
    want_promotion(mlflow_runs.client(run.settings), registered.name, registered.version)
    emit_event(
        event=GATE_PASSED,
        resource={
            "prefect.resource.id": f"tickline.model.{registered.name}.{registered.version}",
            "prefect.resource.name": f"{registered.name} version {registered.version}",
        },
        payload={
            "version": int(registered.version),
            "verdict": judged.verdict.verdict,
            "flow_run_id": run.flow_run_id,
        },
    )
    return True
