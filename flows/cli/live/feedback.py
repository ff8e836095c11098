"""`tickline feedback`: what became of the sampled live decisions."""

import datetime as dt

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from flows.cli.options import PANELS, settings_from_environment

app = typer.Typer()
out = Console()


@app.command(rich_help_panel=PANELS.monitoring)
def feedback() -> None:
    """Log to MLflow what became of the sampled live decisions, hour by hour.

    Reads the prediction log of [bold]tickline live --log-rate[/] in this home. Each hour
    is logged once, on the run that registered the version. The deployment feedback
    does this every hour.
    """
    settings = settings_from_environment()
    from tasks.monitoring.live_feedback import log_feedback

    logged, notes = log_feedback(settings)
    for note in notes:
        out.print(note, markup=False)
    if not logged:
        out.print("nothing new to log: an hour is logged when it is over")
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("hour (UTC)", "version", "decisions", "labelled", "base rate", "AUC", "PSI"):
        table.add_column(heading, justify="left" if heading.startswith("hour") else "right")
    for one in logged:
        found = one.figures
        worst = max(found.psi, key=lambda name: found.psi[name])
        table.add_row(
            f"{dt.datetime.fromtimestamp(one.hour * 3600, dt.UTC):%Y-%m-%d %H}",
            str(found.version),
            f"{found.decisions:,}",
            f"{found.decisions - found.unlabelled:,}",
            "–" if found.base_rate is None else f"{found.base_rate:.1%}",
            "–" if found.auc is None else f"{found.auc:.3f}",
            f"{worst} {found.psi[worst]:.2f}",
        )
    out.print(table)
