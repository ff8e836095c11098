"""Reports in MLflow's parent run and in Prefect's artefacts, written in every run."""

from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from model_code.artifacts import ArtifactStore
from model_code.attribution.profile import Profile
from model_code.benchmark.reports.latency_sheets import chosen_line
from model_code.benchmark.reports.report import judged_pages
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun
from model_code.market.quality import DayReport
from model_code.settings import REFERENCE_ENGINE
from tasks.caching.stage import RunRef
from tasks.nightly.records import (
    Attributed,
    NightResult,
    Plan,
    ValidatedDay,
)
from tasks.nightly.validate import day_notes
from tasks.runs import mlflow_runs
from tasks.runs.attributions import FOLDER, PROFILE_FILE, drift_of
from tasks.runs.tick_source import TickDay, TickSource

SIMULATED_NOTE = "> **SIMULATED DATA.** The ticks are simulated. The model is not promotable.\n\n"


def publish_validation(run: RunRef, plan: Plan, days: tuple[ValidatedDay, ...]) -> None:
    """Write the validation table to Prefect; HTML report, counts and inputs to MLflow."""
    from tasks.validation.report import render

    table = [
        {
            "instrument": day.symbol,
            "date": str(day.date),
            "rows": day.rows,
            "quarantined": day.quarantined,
            "faults": ", ".join(f"{name} {count}" for name, count in day.faults.items()) or "none",
            "verdict": "; ".join(day.failures) or "passed",
        }
        for day in days
    ]
    create_table_artifact(
        table,
        key="validation",
        description=_note(plan.simulated) + "Rows and quarantined rows by day, with reasons.",
    )
    mlflow = mlflow_runs.client(run.settings)
    html = render(
        [day_report(run.store, day) for day in days],
        source=plan.days[0].market,
        simulated=plan.simulated,
        test_date=plan.test_date if plan.test else None,
    )
    mlflow.log_text(run.mlflow_run_id, html, "validation/report.html")
    mlflow.log_table(run.mlflow_run_id, _columns(table), "validation/days.json")
    notes = {"notes": [*plan.warnings, *day_notes(days)]}
    mlflow.log_dict(run.mlflow_run_id, notes, "validation/notes.json")
    mlflow_runs.log_metrics(
        mlflow,
        run.mlflow_run_id,
        {
            "rows": sum(day.rows for day in days),
            "rows_quarantined": sum(day.quarantined for day in days),
        },
    )
    rows = {(day.symbol, day.date): day.rows for day in days}
    context = {"training": plan.train, "test": plan.test}
    mlflow_runs.log_datasets(
        mlflow,
        run.mlflow_run_id,
        [
            mlflow_runs.DatasetEntry(
                f"{day.symbol}/{day.date}",
                day.digest,
                TickSource(day.market, [TickDay(str(day.date), day.symbol, day.digest)]),
                purpose,
                {"rows": rows[day.symbol, day.date]},
            )
            for purpose, chosen in context.items()
            for day in chosen
        ],
    )


def day_report(store: ArtifactStore, day: ValidatedDay) -> DayReport:
    """The day's report, with what the comparison with other days added."""
    own = DayReport.model_validate_json(store.open(day.report).read_bytes())
    judged = {"failures": day.failures, "remedies": day.remedies, "passed": not day.failures}
    return own.model_copy(update=judged)


def publish_outcome(run: RunRef, result: NightResult) -> None:
    """Write benchmark and verdict to Prefect; metrics, plots and tables to MLflow."""
    folder = run.store.open(result.measured.folder)
    benchmark = BenchmarkRun.load(folder)
    judged, network = result.judged, result.candidate.network
    verdict, heading = judged.verdict, _note(result.plan.simulated)
    pages = judged_pages(benchmark, folder, judged.selection)
    create_markdown_artifact(
        pages["benchmark.md"], key="benchmark", description="Engines side by side on the test day."
    )
    create_markdown_artifact(
        heading + verdict.markdown(),
        key="verdict",
        description=f"Gate verdict: {verdict.verdict}.",
    )
    mlflow, run_id = mlflow_runs.client(run.settings), run.mlflow_run_id
    mlflow.log_artifacts(run_id, str(folder), "benchmark")
    for name, text in pages.items():
        mlflow.log_text(run_id, text, f"benchmark/{name}")
    if result.candidate.choice:
        mlflow.log_artifacts(run_id, str(run.store.path(result.candidate.choice.folder)), "models")
    mlflow.log_text(run_id, verdict.markdown(), "gate/verdict.md")
    mlflow.log_text(run_id, judged.verdict_json, "gate/verdict.json")
    mlflow.log_dict(run_id, result.candidate.split.summary, "split.json")
    chosen, reference = benchmark.result.row(judged.engine), benchmark.result.row(REFERENCE_ENGINE)
    if chosen and reference:
        mlflow_runs.log_metrics(mlflow, run_id, chosen.metrics())
        mlflow_runs.log_metrics(mlflow, run_id, {"speedup": reference.p50_ms / chosen.p50_ms})
    mlflow_runs.log_metrics(
        mlflow,
        run_id,
        {f"baseline_{name}": value for name, value in result.candidate.baseline.metrics.items()},
    )
    best = network.history[network.best_epoch - 1]
    mlflow_runs.log_metrics(mlflow, run_id, {"validation_auc": best["validation_auc"]})
    tags = {"tickline.verdict": verdict.verdict, "tickline.engine": judged.engine}
    if result.registered:
        tags |= {"tickline.model_version": result.registered.version}
    if result.staged:
        tags |= {"tickline.staged": result.staged.path}
    mlflow_runs.set_tags(mlflow, run_id, tags)
    looks = publish_attributions(run, result.attributed, result.measured.champion_version)
    text = heading + _description(result, benchmark.result, looks)
    mlflow_runs.note(mlflow, run_id, text)


def publish_attributions(run: RunRef, attributed: Attributed | None, champion: str | None) -> str:
    """Log what the model looks at and how that has moved; return both as a paragraph."""
    if attributed is None:
        return ""
    if attributed.folder is None:
        return f"What the model looks at: not computed ({attributed.failure})\n\n"
    mlflow, run_id = mlflow_runs.client(run.settings), run.mlflow_run_id
    folder = run.store.open(attributed.folder)
    profile = Profile.model_validate_json((folder / PROFILE_FILE).read_bytes())
    mlflow.log_artifacts(run_id, str(folder), FOLDER)
    mlflow_runs.log_metrics(mlflow, run_id, profile.metrics())
    drift = drift_of(mlflow, run_id, profile, champion)
    moved = "no earlier profile to compare with"
    if drift is not None:
        mlflow.log_text(run_id, drift.model_dump_json(indent=2) + "\n", f"{FOLDER}/drift.json")
        mlflow_runs.log_metrics(mlflow, run_id, {"attribution_drift": drift.distance})
        moved = drift.line
    create_markdown_artifact(
        f"{moved}\n\n{profile.markdown()}", key="attribution", description="Features by lag."
    )
    return f"What the model looks at: {profile.line}; {moved}\n\n"


def _description(result: NightResult, benchmark: BenchmarkResult, looks: str) -> str:
    """A few lines for the run's page; MLflow cuts descriptions at 8,000 characters."""
    judged, boosting = result.judged, result.candidate.baseline.metrics
    row = benchmark.row(judged.engine)
    candidate = result.candidate
    notes = (*candidate.split.notes, *result.plan.warnings, *candidate.notes)
    auc = "unknown" if row is None or row.quality.auc is None else f"{row.quality.auc:.4f}"
    return (
        f"**{judged.verdict.verdict}**: {judged.verdict.reason}\n\n"
        f"{chosen_line(benchmark, judged.engine)}\n\n"
        f"AUC on {result.plan.test_date}: {judged.engine} {auc}, "
        f"gradient boosting {boosting['auc']:.4f}\n\n"
        f"{judged.verdict.resolution_line}\n\n"
        f"{looks}" + "".join(f"- {note}\n" for note in notes[:20]) + "\n"
        "Tables: `gate/verdict.md` and `benchmark/benchmark.md` among the artifacts"
    )


def _note(simulated: bool) -> str:
    return SIMULATED_NOTE if simulated else ""


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
