"""A walk forward in MLflow and Prefect: tables, pictures, one nested run for each rival."""

from prefect.artifacts import create_markdown_artifact

from model_code.artifacts import ArtifactRef
from model_code.benchmark.reports.walkforward_report import (
    Walk,
    draw_aucs,
    draw_calibration,
    markdown,
    metrics,
)
from tasks.caching.stage import RunRef
from tasks.runs import mlflow_runs
from tasks.walkforward.judge import pooled
from tasks.walkforward.records import TestDate, Walker


def publish(
    run: RunRef,
    walk: Walk,
    table: ArtifactRef,
    dates: tuple[TestDate, ...],
    walkers: tuple[Walker, ...],
) -> None:
    """Log walkforward.md, walkforward.json, the pictures, and the figures of every rival."""
    mlflow, parent = mlflow_runs.client(run.settings), run.mlflow_run_id
    text = markdown(walk)
    create_markdown_artifact(text, key="walkforward", description="The models on unseen dates.")
    mlflow_runs.note(mlflow, parent, text)
    mlflow.log_text(parent, text, "walkforward.md")
    mlflow.log_text(parent, walk.model_dump_json(indent=2), "walkforward.json")
    pool, rivals = pooled(run.store, table, dates, walkers)
    first = rivals[0]
    shown = [rival for rival in rivals if rival.name in {first.name, first.against}]
    with run.store.scratch() as scratch:
        for path in (
            draw_aucs(walk.judgement, scratch / "auc.png"),
            draw_calibration(pool, shown, scratch / "calibration.png"),
        ):
            mlflow.log_artifact(parent, str(path), "plots")
    mlflow_runs.log_metrics(mlflow, parent, metrics(walk.judgement.rows[0]))
    mlflow_runs.log_metrics(mlflow, parent, {"delay_ms": walk.delay_ms})
    for row, walker in zip(walk.judgement.rows, walkers, strict=True):
        run_id = mlflow_runs.nested(mlflow, run.settings, parent, row.name)
        mlflow_runs.log_params(
            mlflow, run_id, {"model": row.name, "inputs": row.inputs, "against": row.against}
        )
        mlflow_runs.log_metrics(mlflow, run_id, metrics(row))
        for step, fit in enumerate(walker.fits):
            values: dict[str, float | None] = {
                **{f"chosen.{name}": value for name, value in fit.chosen.items()},
                "threshold": fit.threshold,
                "fit_seconds": fit.seconds,
                "date_auc": row.date_aucs[step],
            }
            mlflow_runs.log_metrics(mlflow, run_id, values, step)
        mlflow.set_terminated(run_id)
