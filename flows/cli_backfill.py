"""`tickline backfill`: nights of the past."""

import datetime as dt
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.options import Data, SpecFile, market_uri, nightly_spec, settings_from_environment

app = typer.Typer()
out = Console()
DATE = ["%Y-%m-%d"]


@app.command()
def backfill(
    start: Annotated[dt.datetime, typer.Argument(formats=DATE, help="First date to judge on.")],
    end: Annotated[dt.datetime, typer.Argument(formats=DATE, help="Last date, included.")],
    data: Data = None,
    parallel: Annotated[
        int, typer.Option(min=1, help="Nights at a time; more than one disturb latencies.")
    ] = 1,
    spec: SpecFile = None,
) -> None:
    """Train and judge on each past date of a range, as its night would have; registers nothing.

    Nights that were computed before come back Cached: after a failure run the same command again.

        tickline backfill 2024-08-06 2024-08-08 --data PATH
    """
    settings = settings_from_environment()
    changes: dict[str, Any] = {"market": market_uri(data, settings)}
    wanted = nightly_spec(spec, changes)
    from flows.local import connected

    with connected(settings):
        from flows.backfill import backfill as fill

        nights = fill(wanted, start.date(), end.date(), parallel)
    table = Table("date", "verdict", "engine", "AUC", "gradient boosting", title="Backfill")
    for night in nights:
        scores = [
            "–" if score is None else f"{score:.4f}" for score in (night.auc, night.baseline_auc)
        ]
        table.add_row(night.date, night.verdict, night.engine, *scores)
    out.print(table)
