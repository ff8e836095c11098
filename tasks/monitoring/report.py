"""Reports in MLflow's parent run and in Prefect's artefacts, written in every run."""

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from infra.ui import HERE, mlflow_link
from model_code.artifacts import ArtifactStore, hash_bytes
from model_code.attribution.profile import Profile
from model_code.benchmark.reports.latency_sheets import chosen_line
from model_code.benchmark.reports.report import judged_pages
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun
from model_code.market.quality import DayReport
from model_code.settings import MODEL_NAME
from tasks.caching.stage import RunRef
from tasks.nightly.records import (
    Attributed,
    NightResult,
    Plan,
    Registered,
    ValidatedDay,
)
from tasks.nightly.validate import day_notes
from tasks.runs import mlflow_runs
from tasks.runs.attributions import FOLDER, PROFILE_FILE, drift_of
from tasks.runs.metric_names import ENGINE_TAG, TEST_DATE, VERDICT_TAG
from tasks.runs.stored import model_of
from tasks.runs.tick_source import TickDay, TickSource
from tasks.validation.as_of import publish_seen

TABLES = "benchmark/benchmark.html"
NOTES = "notes.md"
LONGEST = 1000  # characters of a description
SERVES = (
    "`tickline promote` and `tickline rollback` decide what serves; an alias set here does not."
)
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
    publish_seen(run, plan, days)
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
    mlflow_runs.log_params(mlflow, run.mlflow_run_id, _days_as_used(plan))
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
    judged = result.judged
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
    spec = result.candidate.features
    used = {"features.feature_set": spec.chosen_set, "features.label": spec.chosen_label}
    mlflow_runs.log_params(mlflow, run_id, used | {"model": result.candidate.model.name})
    sentence = night_sentence(result, benchmark.result)
    registered = result.registered
    of_version = {} if registered is None else _describe(run, result, registered, sentence)
    mlflow_runs.log_metrics(mlflow, run_id, _metrics(result, benchmark.result), 0, **of_version)
    tags = {VERDICT_TAG: verdict.verdict, ENGINE_TAG: judged.engine}
    if registered is not None:
        tags |= {"tickline.model_version": registered.version}
    if result.staged:
        tags |= {"tickline.staged": result.staged.path}
    mlflow_runs.set_tags(mlflow, run_id, tags)
    looks = publish_attributions(run, result.attributed, result.measured.champion_version)
    notes = (*result.candidate.split.notes, *result.plan.warnings, *result.candidate.notes)
    mlflow.log_text(run_id, "".join(f"- {note}\n" for note in notes), NOTES)
    mlflow_runs.note(mlflow, run_id, _description(result, benchmark.result, sentence, looks, notes))


def night_sentence(result: NightResult, benchmark: BenchmarkResult) -> str:
    """Verdict, engine, AUC beside gradient boosting's and p99, as one line of Markdown."""
    judged, row = result.judged, benchmark.row(result.judged.engine)
    auc = "unknown" if row is None or row.quality.auc is None else f"{row.quality.auc:.4f}"
    p99 = "unknown" if row is None else f"{row.p99_ms:.2f} ms"
    simulated = " on SIMULATED ticks, not promotable" if result.plan.simulated else ""
    return (
        f"**{judged.verdict.verdict}**{simulated}: {judged.engine}, test day "
        f"{result.plan.test_date}: AUC {auc}, gradient boosting "
        f"{result.candidate.baseline.metrics['auc']:.4f}, p99 {p99}"
    )


def _metrics(result: NightResult, benchmark: BenchmarkResult) -> dict[str, float | None]:
    """The night's metrics: of the chosen engine, gradient boosting, training and the gate."""
    judged, network = result.judged, result.candidate.network
    row, verdict = benchmark.row(judged.engine), judged.verdict
    found: dict[str, float | None] = {
        **({} if row is None else row.metrics()),
        "speedup": benchmark.speedup(judged.engine),
        **{f"baseline_{name}": value for name, value in result.candidate.baseline.metrics.items()},
        "validation_auc": network.history[network.best_epoch - 1]["validation_auc"],
        "goals_met": sum(goal.passed is True for goal in verdict.rows),
        "goals_missed": sum(goal.passed is False for goal in verdict.rows),
        "auc_resolution": verdict.auc_resolution,
    }
    return found


def _describe(
    run: RunRef, result: NightResult, registered: Registered, sentence: str
) -> dict[str, str]:
    """Describe the version; return its model and test day, to log the night's metrics with.

    A version that an equal night registered keeps that night's description and metrics.
    """
    mlflow = mlflow_runs.client(run.settings)
    version = mlflow.get_model_version(registered.name, registered.version)
    model = model_of(version)
    if version.run_id != run.mlflow_run_id or model is None:
        return {}
    path = f"experiments/{mlflow.get_run(version.run_id).info.experiment_id}/runs/{version.run_id}"
    text = (
        f"{sentence}\n\n[The night's run]({mlflow_link(HERE, path)}) · "
        f"[its tables and plots]({mlflow_link(HERE, f'{path}/artifacts/{TABLES}')})\n\n{SERVES}"
    )
    mlflow.update_model_version(registered.name, registered.version, text)
    days = "\n".join(f"{day.name} {day.digest}" for day in result.plan.test)
    return {
        "model_id": model,
        "dataset_name": f"test {result.plan.test_date}",
        "dataset_digest": hash_bytes(days.encode())[: mlflow_runs.DIGEST_CHARS],
    }


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


def _description(
    result: NightResult,
    benchmark: BenchmarkResult,
    sentence: str,
    looks: str,
    notes: Sequence[str],
) -> str:
    """The sentence, and as much of the rest as fits; all of it is among the artifacts."""
    judged, registered = result.judged, result.registered
    version = ""
    if registered:
        path = f"models/{MODEL_NAME}/versions/{registered.version}"
        version = f"registered as [version {registered.version}]({mlflow_link(HERE, path)}); "
    parts = [
        sentence,
        judged.verdict.reason,
        f"{version}tables: `{TABLES}`, goals: `gate/verdict.md`, notes: `{NOTES}`",
        looks.strip(),
        chosen_line(benchmark, judged.engine),
        judged.verdict.resolution_line,
        *(f"- {note}" for note in notes),
    ]
    text = ""
    for part in parts:
        if part and len(text) + len(part) + 2 <= LONGEST:
            text += f"{part}\n\n"
    return text.rstrip()


def _days_as_used(plan: Plan) -> dict[str, str]:
    """The days and instruments of a run as parameters, whatever its specification left open."""
    dates = sorted({str(day.date) for day in plan.train})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]} ({len(dates)} days)"
    tested = {TEST_DATE: str(plan.test_date)} if plan.test else {}  # a search sees no test day
    return tested | {
        "train_dates": span,
        "instruments": ", ".join(sorted({day.symbol for day in plan.days})),
    }


def _note(simulated: bool) -> str:
    return SIMULATED_NOTE if simulated else ""


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
