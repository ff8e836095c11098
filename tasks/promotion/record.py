"""Step `record`: write the outcome to the audit file, the registry and MLflow."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.exceptions import Pause
from prefect.runtime import flow_run

from model_code.artifacts import hash_bytes
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.serving.client import TritonClient
from model_code.settings import Settings
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.aliases import PREDECESSOR_TAG, Aliases
from tasks.promotion.records import AUDIT_TAG, Compared, Decided, Opened, Shown, Validated
from tasks.promotion.targets import target_facts
from tasks.runs import mlflow_runs
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
    """Write the outcome to the audit file, the model version's tags and the MLflow run."""
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
    written = AuditLog(settings.audit_file).append(
        "promoted", f"promoted-{flow_run.id}", facts | targets
    )
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


def record_stop(
    settings: Settings, opened: Opened | None, version: int, error: BaseException
) -> None:
    """Record that a promotion stopped, and why. Never raises, to keep the original error."""
    reason = str(error)[:500] or type(error).__name__
    facts = {
        "version": version,
        "kind": type(error).__name__,
        "reason": reason,
        "flow_run_id": str(flow_run.id),
    }
    key = f"stopped-{flow_run.id}-{hash_bytes(reason.encode())[:12]}"
    with suppress(Exception):
        AuditLog(settings.audit_file).append("stopped", key, facts)
    if opened is not None:
        with suppress(Exception):
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
