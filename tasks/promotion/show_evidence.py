"""Step `show evidence`: show the evidence to the reviewer; later verify it still applies."""

import datetime as dt
import tempfile
from pathlib import Path

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.runtime import flow_run

from infra.live.feedback.drift_event import records
from infra.stack_state import mlflow_page, prefect_page
from infra.ui import HERE, mlflow_link
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import PromotionError
from model_code.repository.exceptions import reasons_for
from model_code.repository.manifest import Manifest
from model_code.repository.policy import PolicyFile
from model_code.settings import MODEL_NAME, PromotionSpec, Settings
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.evidence import gather, render, summary
from tasks.promotion.exceptions import exception_line
from tasks.promotion.records import Opened, Shown
from tasks.promotion.targets import target_line
from tasks.runs import mlflow_runs
from tasks.runs.serving_version import serving_version
from tasks.runs.version_tags import link_evidence

PAGE = "promotion/evidence.html"
SUBJECT = "promotion-subject"  # key of the artefact
DRIFT_SHOWN = dt.timedelta(days=14)


@once_per_run("show evidence")
def show_evidence(
    settings: Settings, opened: Opened, spec: PromotionSpec, policy: PolicyFile
) -> Shown:
    """Write the evidence page to MLflow and its summary to Prefect; return what was shown.

    Raises:
        PromotionError: there is no gate verdict.
    """
    candidate = Path(opened.candidate)
    manifest = Manifest.load(candidate)
    engine = EngineSidecar.load(candidate).engine
    champion = serving_version(settings).version
    loosened = policy.policy.loosened(spec)
    mlflow = mlflow_runs.client(settings)
    experiment = mlflow_runs.experiment_id(mlflow, settings)
    page, runs = mlflow_page(settings), f"experiments/{experiment}/runs"
    prefect_runs = f"{prefect_page(settings)}/runs/flow-run"
    run_url = mlflow_link(page, f"{runs}/{opened.mlflow_run_id}")
    page_url = mlflow_link(page, f"{runs}/{opened.mlflow_run_id}/artifacts/{PAGE}")
    links = {
        "nightly run in MLflow": mlflow_link(page, f"{runs}/{manifest.mlflow_run_id}"),
        "nightly run in Prefect": f"{prefect_runs}/{manifest.flow_run_id}",
        "this promotion in MLflow": run_url,
        "this promotion in Prefect": f"{prefect_runs}/{flow_run.id}",
    }
    with tempfile.TemporaryDirectory() as scratch:
        live = live_drift(settings)
        evidence = gather(
            mlflow, candidate, engine, champion, links, Path(scratch), target_line(settings), live
        )
        excepted = reasons_for(evidence.verdict.verdict, evidence.drift, spec.not_comparable)
        evidence = evidence.model_copy(
            update={
                "policy_sha256": policy.sha256,
                "loosened": loosened,
                "exceptions": excepted,
                "serving_exception": exception_line(settings),
            }
        )
        mlflow.log_text(opened.mlflow_run_id, render(evidence), PAGE)
    inside = mlflow_link(HERE, f"{runs}/{opened.mlflow_run_id}/artifacts/{PAGE}")
    link_evidence(mlflow, MODEL_NAME, str(opened.version), inside)
    text = summary(evidence, page_url)
    create_markdown_artifact(
        f"{text}\n\n{evidence.verdict.markdown()}",
        key="promotion-evidence",
        description=f"Promote version {manifest.version}?",
    )
    create_link_artifact(
        page_url, link_text="evidence page", key="evidence-page", description="Plots and tables."
    )
    shown = Shown(
        identity=manifest.identity,
        engine_sha256=manifest.engine_sha256,
        config_sha256=manifest.config_sha256,
        engine=engine,
        champion=champion,
        verdict_json=evidence.verdict.model_dump_json(),
        simulated=manifest.simulated,
        page_url=page_url,
        run_url=run_url,
        summary=text,
        policy_sha256=policy.sha256,
        loosened=loosened,
        exceptions=excepted,
    )
    subject = shown.subject(opened, str(flow_run.id)).model_dump()
    create_table_artifact(
        [{"fact": name, "value": value} for name, value in subject.items()],
        key=SUBJECT,
        description="What the decision is about: tickline approve signs it.",
    )
    return shown


def live_drift(settings: Settings) -> list[str]:
    """The sustained breaches of live decisions in this home, in words, the newest first."""
    since = dt.datetime.now(dt.UTC) - DRIFT_SHOWN
    return [
        f"{one.at[:16].replace('T', ' ')} UTC, version {one.figures.version}, {one.group}: "
        f"{'; '.join(one.figures.breaches)}"
        for one in records(settings.home, since)
    ]


def require_unchanged(settings: Settings, opened: Opened, shown: Shown) -> None:
    """Verify that an approval still applies: the same policy, bytes and champion.

    Raises:
        ConfigError: the policy is gone or wrong.
        PromotionError: the policy or the staged version changed, or another version serves.
        IntegrityError: the bytes do not match their manifest.
    """
    policy = PolicyFile.load(settings.serving_repository)
    if policy.sha256 != shown.policy_sha256:
        raise PromotionError(
            f"the policy is not the one that version {opened.version} was approved under: "
            f"shown {shown.policy_sha256[:12] or 'none'}, now {policy.sha256[:12]}",
            where=str(policy.path),
            remedy=f"decide again on new evidence: tickline promote --version {opened.version}",
        )
    found = Manifest.load(Path(opened.candidate)).identity
    if found != shown.identity:
        raise PromotionError(
            f"version {opened.version} is not what was approved: "
            f"shown {shown.identity[:12]}, now {found[:12]}",
            where=opened.candidate,
            remedy="the approval is void; find out who changed it, then promote a version with "
            "intact bytes",
        )
    champion = serving_version(settings).version
    if champion not in {shown.champion, opened.version}:
        raise PromotionError(
            f"version {champion} serves now, the evidence compared with "
            f"{'none' if shown.champion is None else f'version {shown.champion}'}",
            where=str(settings.serving_repository),
            remedy=f"decide again on new evidence: tickline promote --version {opened.version}",
        )
