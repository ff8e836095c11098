"""The evidence page: what a release manager needs to decide, as one self-contained HTML file."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pydantic import BaseModel, ConfigDict, ValidationError

from model_code.attribution.profile import Drift, Profile
from model_code.benchmark.gate import Verdict
from model_code.benchmark.result import BenchmarkResult, EngineRow
from model_code.errors import PromotionError
from model_code.features.drift import LARGE, MODERATE
from model_code.features.served import SeenFeatures
from model_code.repository.manifest import CONFIG_FILE, Manifest
from model_code.repository.requests import DRIFT_FILE
from model_code.repository.triton_config import served_as
from model_code.settings import CHAMPION_ROW, MODEL_NAME, REFERENCE_ENGINE
from tasks.promotion import headline
from tasks.promotion.changes import Change, changes_since
from tasks.runs.attributions import drift_since, profile_of
from tasks.runs.version_tags import seen_of


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
        pictures: PNG files by name.
        champion: serving version; None before the first promotion.
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
    champion: int | None
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
    return Evidence(
        manifest=manifest,
        verdict=Verdict.model_validate_json(verdict.read_bytes()),
        benchmark=_benchmark(folder),
        engine=engine,
        days=_rows(days),
        notes=tuple(json.loads(notes.read_text())["notes"]) if notes else (),
        drift=json.loads(drift.read_text()) if drift.is_file() else {},
        pictures={path.stem: path for path in sorted(folder.glob("*.png"))} if folder else {},
        champion=champion,
        champion_features=None if champion is None else _features_of(mlflow, champion),
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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tasks.promotion", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = {name: _inline(path.read_bytes()) for name, path in evidence.pictures.items()}
    if evidence.drift:
        pictures["drift"] = _inline(_drift_picture(evidence.drift))
    return environment.get_template("evidence.html.j2").render(
        evidence=evidence,
        manifest=evidence.manifest,
        verdict=evidence.verdict,
        candidate=evidence.row(evidence.engine),
        headline=headline,
        champion=evidence.row(CHAMPION_ROW),
        reference=evidence.row(REFERENCE_ENGINE),
        pictures=pictures,
        moderate=MODERATE,
        large=LARGE,
    )


def summary(evidence: Evidence, page_url: str) -> str:
    """Markdown for Prefect's form and artefact: the decision and the main facts."""
    manifest, candidate = evidence.manifest, evidence.row(evidence.engine)
    replaced = "nothing: no version serves yet"
    if evidence.champion is not None:
        replaced = f"version {evidence.champion}"
    p99 = headline.UNKNOWN if candidate is None else f"{candidate.p99_ms:.2f} ms"
    rivals = headline.rivals(evidence.verdict, evidence.benchmark, candidate)
    lines = [
        "**SIMULATED DATA: not trained on a real market.**\n" if manifest.simulated else "",
        f"Promote **version {manifest.version}** ({evidence.engine}), test day "
        f"{headline.test_date(evidence.days)}? It replaces {replaced}. [Evidence]({page_url})\n",
        f"- gate: **{evidence.verdict.verdict}**, {evidence.verdict.reason}",
        f"- AUC **{headline.auc(candidate)}**; {'; '.join(rivals)}",
        f"- p99 {p99}; {headline.latency(evidence.benchmark)}",
        f"- features that drifted: {headline.drifted(evidence.drift)}",
        f"- rows quarantined: {headline.faults(evidence.days)}",
        *(f"- **loosened: {line}**" for line in evidence.loosened),
        f"- **an approval is an exception**: {'; '.join(evidence.exceptions)}. "
        "It needs an owner and a last day"
        if evidence.exceptions
        else "",
        f"- exception of the serving version: {evidence.serving_exception}"
        if evidence.serving_exception
        else "",
        f"- **outdated comparison**: {evidence.outdated}" if evidence.outdated else "",
        f"- targets: {evidence.targets}" if evidence.targets else "",
        f"- server: {evidence.serving}" if evidence.serving else "",
        f"- features: {manifest.seen.text}",
        f"- **other features than the champion**: {evidence.other_features}"
        if evidence.other_features
        else "",
        f"- **live drift**: {evidence.live[0]}" if evidence.live else "",
        f"- looks most at: {evidence.profile.line}" if evidence.profile else "",
        f"- {evidence.profile_drift.line}" if evidence.profile_drift else "",
        f"\n{evidence.verdict.markdown()}",
        f"engine sha256 `{manifest.engine_sha256}`, config `{manifest.config_sha256[:12]}`, "
        f"code `{manifest.code_commit[:12]}`, policy `{evidence.policy_sha256[:12]}`; "
        f"evidence: {page_url}",
    ]
    return "\n".join(line for line in lines if line)


def _features_of(mlflow: MlflowClient, version: int) -> SeenFeatures | None:
    try:
        return seen_of(mlflow.get_model_version(MODEL_NAME, str(version)).tags)
    except MlflowException:
        return None


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


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _drift_picture(drift: Mapping[str, float]) -> bytes:
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = sorted(drift, key=lambda name: drift[name])
    values = [drift[name] for name in names]
    colours = ["#b3261e" if v > LARGE else "#c98a00" if v > MODERATE else "#3b6ea8" for v in values]
    axes.barh(names, values, color=colours)
    for limit in (MODERATE, LARGE):
        axes.axvline(limit, color="#888888", linestyle=":", linewidth=1)
    axes.set_xlabel("population stability index, newest day against training")
    axes.tick_params(labelsize=8)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110)
    return target.getvalue()
