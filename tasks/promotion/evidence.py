"""The evidence page: what a release manager needs to decide, as one self-contained HTML file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pydantic import BaseModel, ConfigDict, ValidationError

from model_code.attribution.profile import Drift, Profile
from model_code.benchmark.gate import Verdict
from model_code.benchmark.reports import plots
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun, EngineRow
from model_code.errors import PromotionError
from model_code.features.drift import LARGE, MODERATE
from model_code.features.served import SeenFeatures
from model_code.pages.page import environment, inline
from model_code.repository.manifest import CONFIG_FILE, Manifest
from model_code.repository.requests import DRIFT_FILE
from model_code.repository.triton_config import served_as
from model_code.settings import CHAMPION_ROW, MODEL_NAME
from tasks.promotion import headline
from tasks.promotion.changes import Change, changes_since
from tasks.runs.attributions import drift_since, profile_of
from tasks.runs.version_tags import START_TAG, seen_of

MANY_DAYS = 12  # instrument-days; the table of more is folded
CAPTIONS = {
    "calibration": "How often an opportunity came when the model said p. On the grey line: exactly "
    "as often as it said.",
    "precision_recall": "Precision: how many of the windows called opportunities were ones. "
    "Recall: how many of all opportunities were called.",
    "roc": "How many of all opportunities are called (up) when a share of the other windows is "
    "called by mistake (right). The area below the curve is the AUC.",
    "latency_ecdf": "Share of single requests answered within a time, in the benchmark.",
}


class Evidence(BaseModel):
    """Evidence on a candidate. A missing part is None or empty, and the page says so.

    Attributes:
        manifest: of the staged version.
        verdict: the gate's.
        benchmark: engines side by side.
        engine: name of the staged engine.
        days: validated instrument-days.
        notes: on the ticks: what was left out, moved, assumed or missing.
        drift: PSI by feature.
        pictures: PNG files of the staged engine by name, see `plots.draw_candidate`.
        model_kind: of the network; "not recorded" if the registry lacks it, like the next two.
        champion: serving version; None before the first promotion.
        champion_engine: that serves.
        champion_kind: of the serving network.
        champion_features: that it sees; None without a champion, or if the registry lacks it.
        changes: what differs from the champion's night.
        profile: what the model looks at.
        profile_drift: how that differs from the champion's night.
        live: sustained breaches of live decisions, in words, the newest first.
        links: URL by name.
        serving: instances, threads and batching of `config.pbtxt`, in words.
        targets: which servers get it and when the route turns; empty with a single server.
        policy_sha256: of the policy that applies.
        loosened: values that are looser than its limits, in words.
        exceptions: why an approval is an exception; empty if it is a plain one.
        serving_exception: of the serving version, in words; empty if it has none.
    """

    model_config = ConfigDict(frozen=True)

    manifest: Manifest
    verdict: Verdict
    benchmark: BenchmarkResult | None
    engine: str
    days: list[dict[str, Any]]
    notes: tuple[str, ...] = ()
    drift: dict[str, float]
    pictures: dict[str, Path]
    model_kind: str = headline.UNKNOWN
    champion: int | None
    champion_engine: str = headline.UNKNOWN
    champion_kind: str = headline.UNKNOWN
    champion_features: SeenFeatures | None = None
    changes: tuple[Change, ...] = ()
    profile: Profile | None = None
    profile_drift: Drift | None = None
    live: tuple[str, ...] = ()
    links: dict[str, str]
    serving: str = ""
    targets: str = ""
    policy_sha256: str = ""
    loosened: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    serving_exception: str = ""

    @property
    def outdated(self) -> str:
        """Why the gate's comparison is not with the serving version; empty if it is."""
        row = self.row(CHAMPION_ROW)
        version = row.facts.version if row else None
        if self.champion is None or self.benchmark is None or version == self.champion:
            return ""
        compared_with = "nothing" if row is None else f"version {version}"
        return (
            f"the gate compared it with {compared_with}, but version {self.champion} serves now: "
            "run a nightly to compare with that version, or rely on shadow and canary alone"
        )

    @property
    def other_features(self) -> str:
        """What to know if the champion sees other features; empty if it does not."""
        if self.champion_features in (None, self.manifest.seen):
            return ""
        return (
            f"version {self.manifest.version} and version {self.champion} see different features; "
            "each is compared on its own windows of the same rows"
        )

    def row(self, engine: str) -> EngineRow | None:
        """Return an engine's row of the benchmark."""
        return self.benchmark.row(engine) if self.benchmark else None


def gather(
    mlflow: MlflowClient,
    candidate: Path,
    engine: str,
    champion: int | None,
    links: Mapping[str, str],
    scratch: Path,
    targets: str = "",
    live: Sequence[str] = (),
) -> Evidence:
    """Collect the nightly run's artefacts and the staged files.

    Raises:
        PromotionError: there is no gate verdict.
        IntegrityError: the staged bytes do not match the manifest.
    """
    manifest = Manifest.load(candidate)
    run_id = manifest.mlflow_run_id
    found = {part: _download(mlflow, run_id, part, scratch) for part in ("gate", "benchmark")}
    days = _download(mlflow, run_id, "validation/days.json", scratch)
    notes = _download(mlflow, run_id, "validation/notes.json", scratch)
    verdict = found["gate"] / "verdict.json" if found["gate"] else None
    if verdict is None or not verdict.is_file():
        raise PromotionError(
            f"the gate's verdict on version {manifest.version} is not in MLflow",
            where=f"run {run_id}, gate/verdict.json",
            remedy="promote a version that a nightly registered: tickline nightly",
        )
    drift = candidate / DRIFT_FILE
    profile = profile_of(mlflow, run_id)
    folder = found["benchmark"]
    tags = _tags(mlflow, manifest.version) or {}
    served = None if champion is None else _tags(mlflow, champion)
    return Evidence(
        manifest=manifest,
        verdict=Verdict.model_validate_json(verdict.read_bytes()),
        benchmark=_benchmark(folder),
        engine=engine,
        days=_rows(days),
        notes=tuple(json.loads(notes.read_text())["notes"]) if notes else (),
        drift=json.loads(drift.read_text()) if drift.is_file() else {},
        pictures=_pictures(folder, engine, scratch / "pictures"),
        model_kind=_kind(tags),
        champion=champion,
        champion_engine=(served or {}).get("engine", headline.UNKNOWN),
        champion_kind=_kind(served or {}),
        champion_features=None if served is None else seen_of(served),
        changes=() if champion is None else changes_since(mlflow, run_id, champion),
        profile=profile,
        profile_drift=None if champion is None else drift_since(mlflow, profile, champion),
        live=tuple(live),
        links=dict(links),
        serving=served_as((candidate / CONFIG_FILE).read_text()),
        targets=targets,
    )


def render(evidence: Evidence) -> str:
    """Render the page: pictures embedded, no scripts, no external resources."""
    manifest = evidence.manifest
    return (
        environment(Path(__file__).parent)
        .get_template("evidence.html.j2")
        .render(
            evidence=evidence,
            manifest=manifest,
            verdict=evidence.verdict,
            candidate=evidence.row(evidence.engine),
            headline=headline,
            champion_row=CHAMPION_ROW,
            pictures=[
                (name, CAPTIONS[name], inline(path.read_bytes()))
                for name, path in evidence.pictures.items()
            ],
            drift=sorted(evidence.drift.items(), key=lambda item: -item[1]),
            moderate=MODERATE,
            large=LARGE,
            many_days=MANY_DAYS,
            hashes={
                "engine": manifest.engine_sha256,
                "configuration": manifest.config_sha256,
                "policy": evidence.policy_sha256,
                "graph": manifest.onnx_sha256,
                "data": manifest.data_sha256,
                "code": manifest.code_commit,
                **manifest.files,
            },
        )
    )


def summary(evidence: Evidence, page_url: str) -> str:
    """Markdown for Prefect's form and artefact: first what the decision needs, then the rest.

    The form shows about eight lines of 57 characters without scrolling.
    """
    manifest, candidate, verdict = (
        evidence.manifest,
        evidence.row(evidence.engine),
        evidence.verdict,
    )
    replaced = "No version serves yet."
    if evidence.champion is not None:
        replaced = f"It replaces version {evidence.champion}."
    p99 = headline.UNKNOWN if candidate is None else f"{candidate.p99_ms:.2f} ms"
    rivals = headline.rivals(verdict, evidence.benchmark, candidate)
    first = [
        "**SIMULATED DATA.**" if manifest.simulated else "",
        f"Promote **version {manifest.version}** ({evidence.engine})? {replaced}",
        f"**{verdict.verdict}**: {verdict.reason}. "
        f"Tested on {headline.test_date(evidence.days)}. [Evidence]({page_url})",
    ]
    figures = {
        "AUC": f"**{headline.auc(candidate)}**; {', '.join(rivals)}",
        "p99": f"**{p99}**; {headline.latency(evidence.benchmark)}",
        "features drifted far": f"**{headline.drifted(evidence.drift)}**",
    }
    more = {
        "**exception**": f"{'; '.join(evidence.exceptions)}. It needs an owner and a last day"
        if evidence.exceptions
        else "",
        "**outdated comparison**": evidence.outdated,
        "**live drift**": evidence.live[0] if evidence.live else "",
        "**other features than the champion**": evidence.other_features,
        "exception of the serving version": evidence.serving_exception,
        "rows quarantined": headline.faults(evidence.days),
        "targets": evidence.targets,
        "server": evidence.serving,
        "features": manifest.seen.text,
        "looks most at": evidence.profile.line if evidence.profile else "",
        "changed since the champion": evidence.profile_drift.line if evidence.profile_drift else "",
    }
    lines = [
        " ".join(part for part in first if part),
        "",
        *(f"- {name}: {text}" for name, text in figures.items()),
        *(f"- **loosened: {line}**" for line in evidence.loosened),
        *(f"- {name}: {text}" for name, text in more.items() if text),
    ]
    return "\n".join(lines)


def _tags(mlflow: MlflowClient, version: int) -> Mapping[str, str] | None:
    """Of a registered version; None if the registry lacks it."""
    try:
        tags: Mapping[str, str] = mlflow.get_model_version(MODEL_NAME, str(version)).tags
    except MlflowException:
        return None
    return tags


def _kind(tags: Mapping[str, str]) -> str:
    """Kind of a version's network, as its tags name it."""
    try:
        return str(json.loads(tags[START_TAG])["network"]["KIND"])
    except (KeyError, TypeError, ValueError):  # of an earlier version
        return headline.UNKNOWN


def _download(mlflow: MlflowClient, run_id: str, path: str, scratch: Path) -> Path | None:
    try:
        found = Path(mlflow.download_artifacts(run_id, path, str(scratch)))
    except (MlflowException, OSError):
        return None
    return found if found.exists() else None


def _benchmark(folder: Path | None) -> BenchmarkResult | None:
    try:
        return (
            BenchmarkResult.model_validate_json((folder / "benchmark.json").read_bytes())
            if folder
            else None
        )
    except (OSError, ValidationError):  # written by an older version; the page says it is missing
        return None


def _rows(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    table = json.loads(path.read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def _pictures(folder: Path | None, engine: str, target: Path) -> dict[str, Path]:
    """Draw the staged engine from the benchmark's raw numbers; empty if they are not all there."""
    if folder is None:
        return {}
    try:
        run = BenchmarkRun.load(folder)
    except (OSError, ValidationError, pl.exceptions.PolarsError):  # of an earlier version, or none
        return {}
    return plots.draw_candidate(run, engine, target)
