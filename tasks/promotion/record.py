"""Step `record`: write the outcome to the audit file, the registry and MLflow."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.exceptions import Pause
from prefect.runtime import flow_run
from rich.markup import escape

from infra.leases.lease import LeaseLostError, require_held
from model_code.artifacts import hash_bytes
from model_code.errors import PromotionError
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.settings import Settings
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.records import AUDIT_TAG, Compared, Decided, Opened, Shown, Validated
from tasks.promotion.targets import target_facts
from tasks.runs import mlflow_runs
from tasks.runs.aliases import PREDECESSOR_TAG, Aliases
from tasks.runs.console import console
from tasks.runs.faults import Fault

APPROVED_TAG = "approved_by"


@once_per_run("record")
def record(
    settings: Settings,
    url: str,
    opened: Opened,
    shown: Shown,
    decided: Decided,
    validated: Validated,
    compared: tuple[Compared, Compared],
) -> AuditRecord:
    """Write the outcome to the audit file, the model version's tags and the MLflow run.

    Raises:
        FencedError: an emergency rollback took over.
        PromotionError: another version serves by now, or another promotion made this one serve: the
            outcome and its tags are not this promotion's.
    """
    require_owner(settings, opened)
    _require_serving(settings, opened)
    with TritonClient(url) as client:
        server = client.server()
    facts = {
        "version": opened.version,
        "previous": shown.champion,
        "approved_by": decided.reviewer,
        "reason": decided.reason,
        "started_by": opened.started_by,
        "engine": shown.engine,
        "engine_sha256": shown.engine_sha256,
        "config_sha256": shown.config_sha256,
        "policy_sha256": shown.policy_sha256,
        "triton_version": server,
        "flow_run_id": str(flow_run.id),
        "mlflow_run_id": opened.mlflow_run_id,
    }
    targets = target_facts(settings)
    require_held()
    written = AuditLog.of(settings).append("promoted", f"promoted-{flow_run.id}", facts | targets)
    tags = {
        APPROVED_TAG: decided.reviewer,
        "approved_at": decided.at.isoformat(timespec="seconds"),
        "reason": decided.reason,
        "started_by": opened.started_by,
        "engine_sha256": shown.engine_sha256,
        "triton_version": server,
        "promotion_flow_run_id": str(flow_run.id),
        AUDIT_TAG: written.sha256,
        PREDECESSOR_TAG: "" if shown.champion is None else str(shown.champion),
    }
    if targets:
        tags |= {"targets": ", ".join(targets["targets"]), "behind": ", ".join(targets["behind"])}
    Aliases(settings).tag(opened.version, tags)
    mlflow = mlflow_runs.client(settings)
    mlflow_runs.set_tags(mlflow, opened.mlflow_run_id, tags | {"outcome": "promoted"})
    steps = [step for part in compared for step in part.steps]
    metrics: dict[str, float | None] = {"replay_max_abs_dp": validated.largest}
    for loaded in validated.loads:
        at = f"c{loaded.concurrency}"
        metrics |= {f"p50_ms_{at}": loaded.p50_ms, f"p99_ms_{at}": loaded.p99_ms}
        metrics |= {f"throughput_{at}": loaded.throughput}
    if steps:
        metrics |= {"disagreement": max(seen.disagreement for seen in steps)}
        metrics |= {"candidate_errors": float(sum(seen.errors for seen in steps))}
    mlflow_runs.log_metrics(mlflow, opened.mlflow_run_id, metrics)
    mlflow.log_dict(
        opened.mlflow_run_id,
        {
            "validation": validated.model_dump(mode="json"),
            "shadow": compared[0].model_dump(mode="json"),
            "canary": compared[1].model_dump(mode="json"),
        }
        | ({"targets": targets} if targets else {}),
        "promotion/proof.json",
    )
    return written


def require_owner(settings: Settings, opened: Opened) -> None:
    """Check that the outcome of the version is still this promotion's to decide.

    A promotion that was left behind may be resumed after another one has promoted its version.

    Raises:
        FencedError: an emergency rollback took over.
        PromotionError: another promotion of the version ended after this one was approved.
    """
    ServingRepository(settings.serving_repository, opened.epoch).fence.require()
    own = str(flow_run.id)
    for record in reversed(AuditLog.of(settings).read()):
        if record.event not in {"approved", "promoted"}:
            continue
        if record.facts.get("flow_run_id") == own:
            return
        if record.event == "promoted" and record.facts["version"] == opened.version:
            raise PromotionError(
                f"version {opened.version} was promoted by another run since this approval",
                where=f"audit file, record {record.number}",
                remedy="nothing to do: this run is left over, and its approval is void",
            )


def _require_serving(settings: Settings, opened: Opened) -> None:
    serving = ServingRepository(settings.serving_repository)
    champion = serving.route().champion
    if champion is None or champion.version != opened.version:
        now = "no version serves" if champion is None else f"version {champion.version} serves"
        raise PromotionError(
            f"{now} by now, not version {opened.version}: its promotion is not recorded",
            where=str(serving.route_file),
            remedy=f"to promote it again: tickline promote --version {opened.version}",
        )


def record_stop(
    settings: Settings, opened: Opened | None, version: int, error: BaseException
) -> None:
    """Record that a promotion stopped, and why. Never raises, to keep the original error.

    A process that has lost its lease records nothing.

    If the audit file cannot be written, the error gets a note. The approval is void then too:
    `was_recorded` finds no record of the stop.
    """
    if isinstance(error, LeaseLostError):  # another host may have resumed this promotion
        return
    reason = str(error)[:500] or type(error).__name__
    facts = {
        "version": version,
        "kind": type(error).__name__,
        "reason": reason,
        "flow_run_id": str(flow_run.id),
        "attempt": flow_run.run_count,
    }
    key = f"stopped-{flow_run.id}-{flow_run.run_count}-{hash_bytes(reason.encode())[:12]}"
    try:
        AuditLog.of(settings).append("stopped", key, facts)
    except Exception as failed:  # of the disk, or a broken chain
        note = f"the stop is not in the audit file, so an approval is void: {failed}"
        error.add_note(note)
        console.print(f"  [bold red]warning[/]: {escape(note)}")
    if opened is not None:
        with suppress(Exception):  # the audit file decides; these are for the pages
            mlflow = mlflow_runs.client(settings)
            mlflow_runs.set_tags(
                mlflow,
                opened.mlflow_run_id,
                {
                    "outcome": "stopped",
                    mlflow_runs.ERROR_TAG: reason,
                    mlflow_runs.FAULT_TAG: Fault.of(error).model_dump_json(),
                },
            )
            mlflow_runs.finish(mlflow, opened.mlflow_run_id, "FAILED")


@contextmanager
def stop_recorded(settings: Settings, version: int) -> Iterator[list[Opened]]:
    """Record in the audit file and MLflow why a promotion stopped. A suspension is no stop."""
    seen: list[Opened] = []
    try:
        yield seen
    except Pause:
        raise
    except BaseException as error:
        record_stop(settings, seen[0] if seen else None, version, error)
        raise
