"""`tickline nightly`, `backfill`: retrain the model, or run the nightly of past dates."""

import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.options import (
    PANELS,
    Data,
    Engines,
    FromRun,
    Network,
    OnCluster,
    Set,
    SpecFile,
    default_of,
    expanded,
    market_uri,
    read_spec,
    settings_from_environment,
)
from flows.cli.start import night_spec
from model_code.errors import ConfigError
from model_code.settings import NightlySpec

app = typer.Typer()
out = Console()
DATE = ["%Y-%m-%d"]


@app.command(rich_help_panel=PANELS.nights)
def nightly(
    data: Data = None,
    instrument: Annotated[
        list[str] | None,
        typer.Option(
            "--instrument",
            "-i",
            help="Only this instrument; repeat for several.",
            show_default="all",
        ),
    ] = None,
    test_date: Annotated[
        str | None,
        typer.Option(
            help="Judge on this date (YYYY-MM-DD).", show_default="the store's newest date"
        ),
    ] = None,
    train_days: Annotated[
        int | None,
        typer.Option(
            help="Train on at most this many dates before the test date.",
            show_default=default_of(NightlySpec, "train_days"),
        ),
    ] = None,
    horizon_ms: Annotated[
        float | None,
        typer.Option(
            help="Label: an opportunity within this many milliseconds.",
            show_default=default_of(NightlySpec, "features.horizon_ms"),
        ),
    ] = None,
    cost_bps: Annotated[
        float | None,
        typer.Option(
            help="Label: round-trip cost in basis points.",
            show_default=default_of(NightlySpec, "features.cost_bps"),
        ),
    ] = None,
    max_fault_fraction: Annotated[
        float | None,
        typer.Option(
            help="Fail a day with more faulty rows than this fraction; 0.01 is 1%.",
            show_default=default_of(NightlySpec, "validation.max_fault_fraction"),
        ),
    ] = None,
    network: Network = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="What is normal in the market: crypto, us-equities or fx.",
            show_default="what the store states, else crypto",
        ),
    ] = None,
    allow_missing: Annotated[
        list[str] | None,
        typer.Option(
            help="An instrument that may have no ticks on the test date; repeat for several.",
            show_default="none",
        ),
    ] = None,
    train_windows: Annotated[
        int | None,
        typer.Option(
            help="Training windows to draw; more is slower and better.",
            show_default=default_of(NightlySpec, "split.train_windows"),
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training windows.",
            show_default=default_of(NightlySpec, "training.epochs"),
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Windows per optimiser step.",
            show_default=default_of(NightlySpec, "training.batch_size"),
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate.",
            show_default=default_of(NightlySpec, "training.learning_rate"),
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="auto, fp32, bf16 or fp16; auto picks what is fast here.",
            show_default=default_of(NightlySpec, "training.precision"),
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Random seed of weights, order and dropout.",
            show_default=default_of(NightlySpec, "training.seed"),
        ),
    ] = None,
    engine: Engines = None,
    goals: Annotated[
        Path | None,
        typer.Option(
            help="YAML of the gate's goals.", show_default="the shipped goals", callback=expanded
        ),
    ] = None,
    pin: Annotated[
        str | None,
        typer.Option(
            help="Stage this engine or none.", show_default="the fastest that passes the gate"
        ),
    ] = None,
    spec: SpecFile = None,
    from_run: FromRun = None,
    as_of: Annotated[
        bool,
        typer.Option(
            "--as-of", help="With --from-run: use the ticks that run saw, not the files of today."
        ),
    ] = False,
    set_: Set = None,
    cluster: OnCluster = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ignore cached results; compute every stage.")
    ] = False,
) -> None:
    """Retrain the model: validate ticks, train, build engines, benchmark, judge, stage.

    Use it to get tonight's candidate. It trains on the dates before the newest
    one and judges on the newest. Nothing goes live: the candidate is registered
    in MLflow and written to the staging repository.

    Stages with unchanged inputs come back [bold]Cached[/]. Resume a failed run
    with [bold]tickline rerun[/]. Without data it uses a simulated market and labels
    all results as simulated.

    One change to an earlier night, all else as it was:

        tickline nightly --from-run RUN --set training.learning_rate=3e-4

    The same on the ticks that it saw, if the market's files were corrected since:

        tickline nightly --from-run RUN --as-of
    """
    if as_of and from_run is None:
        raise ConfigError("--as-of needs a run", remedy="name it: --from-run RUN --as-of")
    settings = settings_from_environment(cluster=cluster)
    changes: dict[str, Any] = {
        "market": market_uri(data, settings, from_run),
        "instruments": instrument,
        "test_date": test_date,
        "train_days": train_days,
        "goals": str(goals.resolve()) if goals else None,
        "allow_missing": allow_missing,
        "validation": {"max_fault_fraction": max_fault_fraction, "profile": profile},
        "features": {"horizon_ms": horizon_ms, "cost_bps": cost_bps},
        "split": {"train_windows": train_windows},
        "training": {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "precision": precision,
            "seed": seed,
        },
        "benchmark": {"engines": engine, "pin": pin},
    }
    wanted = night_spec(
        settings, path=spec, from_run=from_run, network=network, changes=changes, assignments=set_
    )
    from flows.runs.local import run_nightly

    outcome = run_nightly(wanted, settings, refresh=refresh, as_of=from_run if as_of else None)
    from flows.cli.tables import outcome_tables  # imports Prefect: after its environment is set

    out.print(outcome_tables(outcome))


@app.command(rich_help_panel=PANELS.nights)
def backfill(
    start: Annotated[dt.datetime, typer.Argument(formats=DATE, help="First date to judge on.")],
    end: Annotated[dt.datetime, typer.Argument(formats=DATE, help="Last date, included.")],
    data: Data = None,
    parallel: Annotated[
        int | None,
        typer.Option(min=1, help="Dates at a time.", show_default="1, or the cluster's workers"),
    ] = None,
    spec: SpecFile = None,
    cluster: OnCluster = None,
) -> None:
    """Run the nightly of each past date in a range: train and judge, register nothing.

    Use it to see how the model would have done on past dates. After a failure
    run the same command again: finished stages come back [bold]Cached[/].

        tickline backfill 2024-08-06 2024-08-08 --data PATH
    """
    settings = settings_from_environment(cluster=cluster)
    changes: dict[str, Any] = {"market": market_uri(data, settings)}
    wanted = read_spec(NightlySpec, spec, changes)
    from flows.runs.local import connected

    with connected(settings):
        from flows.backfill import backfill as run_backfill

        results = run_backfill(wanted, start.date(), end.date(), parallel)
    table = Table("date", "verdict", "engine", "AUC", "gradient boosting", title="Backfill")
    for result in results:
        scores = [
            "–" if score is None else f"{score:.4f}" for score in (result.auc, result.baseline_auc)
        ]
        table.add_row(result.date, result.verdict, result.engine, *scores)
    out.print(table)
