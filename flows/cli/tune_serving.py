"""`tickline tune-serving`: measure the model server's settings at a stated rate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from flows.cli.options import (
    PANELS,
    ServedVersion,
    StagedByRun,
    expanded,
    settings_from_environment,
)

if TYPE_CHECKING:
    from flows.runs.tune_serving import TunedServing

app = typer.Typer()
out = Console()


@app.command("tune-serving", rich_help_panel=PANELS.serving)
def tune_serving(
    rate: Annotated[
        float, typer.Option(help="Requests per second, single windows, evenly spaced.", min=1.0)
    ] = 200.0,
    p99: Annotated[
        float, typer.Option(help="Goal: p99 at the client, ms from the intended time.", min=0.1)
    ] = 10.0,
    seconds: Annotated[float, typer.Option(help="Of each measurement.", min=0.5)] = 5.0,
    rounds: Annotated[
        int, typer.Option(help="Measurements of each finalist, in turns.", min=1)
    ] = 5,
    version: ServedVersion = None,
    run: StagedByRun = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="YAML file for tickline nightly --spec.", show_default="none", callback=expanded
        ),
    ] = None,
) -> None:
    """Find the model server's settings for your request rate, on the real server.

    It measures instances, threads, queue delay and preferred batch sizes: each
    setting once, then the best of them and the design's in turns. Of those that
    meet the goal it chooses the one that takes the least processor time. The
    serving server is not touched. Use an idle machine; exit status 1 if no
    setting meets the goal (docs/serving.md).
    """
    from flows.runs.tune_serving import Load, tune_serving

    with out.status("starting the server") as status:
        found = tune_serving(
            settings_from_environment(),
            version,
            run,
            Load(rate, p99, seconds, rounds),
            lambda text: status.update(f"measuring {text}"),
        )
    show(found, rate, p99)
    if found.choice.row is None:
        raise typer.Exit(1)
    chosen = found.choice.row.serving
    values = chosen.model_dump(mode="json", exclude={"KIND"})
    if save is not None:
        save.write_text(yaml.safe_dump({"serving": values}, sort_keys=False))
        out.print(f"to stage with it: tickline nightly --spec {save}", soft_wrap=True)
    else:
        out.print("to stage with it: --save FILE, then tickline nightly --spec FILE")


def show(found: "TunedServing", rate: float, goal_ms: float) -> None:
    """Print the finalists, the choice and why."""
    from model_code.repository.config_search import DESIGN, frontier

    table = Table(
        title=f"Version {found.version}, {found.engine}, {rate:g} requests/s",
        caption="medians of the rounds; cpu: the server's processor time per request",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("instances", "threads", "delay us", "preferred", "p50 ms", "p99 ms", "cpu us"):
        table.add_column(heading, justify="right")
    table.add_column("")
    best = [row.serving for row in frontier(found.finalists)]
    for row in found.finalists:
        one = row.serving
        marks = {
            "chosen": found.choice.row is row,
            "design": one == DESIGN,
            "frontier": one in best,
            f"{row.unanswered} failed": row.unanswered > 0,
        }
        table.add_row(
            str(one.instances),
            "engine's" if one.threads is None else str(one.threads),
            str(one.queue_delay_us),
            "/".join(map(str, one.preferred_batch_sizes)) or "none",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.processor_us:.0f}",
            ", ".join(name for name, holds in marks.items() if holds),
        )
    out.print(table)
    out.print(
        f"{len(found.screened)} settings measured once, {len(found.finalists)} of them in "
        f"{len(found.finalists[0].rounds)} rounds; goal: p99 {goal_ms:g} ms"
    )
    if found.perf_analyzer_ms is not None:
        p50, p99 = found.perf_analyzer_ms
        out.print(f"perf_analyzer, the chosen setting: p50 {p50:.2f}, p99 {p99:.2f} ms")
    what = "none" if found.choice.row is None else found.choice.row.serving.text
    out.print(f"chosen: {what}; {found.choice.reason}", soft_wrap=True)
