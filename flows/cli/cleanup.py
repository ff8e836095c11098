"""`tickline gc`: free disk space, after saying what would go."""

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from flows.cli.options import PANELS, settings_from_environment

if TYPE_CHECKING:
    from model_code.monitoring.retention import Item

app = typer.Typer()
out = Console()


@app.command(rich_help_panel=PANELS.monitoring)
def gc(
    apply: Annotated[
        bool, typer.Option("--apply", help="Delete; without it nothing is touched.")
    ] = False,
    keep_days: Annotated[
        int, typer.Option(help="Keep what nights of the last so many days used.", min=1)
    ] = 30,
    details: Annotated[
        bool, typer.Option("--details", help="List every item that goes, with its path.")
    ] = False,
) -> None:
    """Delete artefacts, stage results, checkpoints and logs that nothing needs. Dry run first.

    Kept: what the champion, its predecessor, any staged or serving version, and any run that is
    at work, suspended or younger than --keep-days needs, and all that is younger than a day.
    MLflow's and Prefect's databases, MLflow's files and the model repositories are never touched.
    """
    settings = settings_from_environment()
    from flows.runs.local import connected

    out.print("asking Prefect and MLflow who needs what...")
    with connected(settings):
        from model_code.monitoring.retention import delete
        from tasks.monitoring.retention import find
        from tasks.runs.lifecycle import exclusive

        keep, now = dt.timedelta(days=keep_days), dt.datetime.now(dt.UTC)
        if not apply:
            items = find(settings, keep=keep, now=now)
            out.print(_table(items, details))
            out.print("nothing was deleted; [bold]tickline gc --apply[/] deletes it")
            return
        with exclusive(settings):  # no night may begin to use what is about to go
            items = find(settings, keep=keep, now=now)
            out.print(_table(items, details))
            out.print(f"freed [bold]{decimal(delete(items))}")


def _table(items: "list[Item]", details: bool) -> Table:
    table = Table(title="Home folder")
    if details:
        for heading in ("goes", "size", "path"):
            table.add_column(heading, overflow="fold")
        for item in items:
            if not item.needed:
                table.add_row(item.kind, decimal(item.size), str(item.path))
        return table
    for heading in ("", "stay", "size", "go", "size"):
        table.add_column(heading, justify="left" if not heading else "right")
    for kind in dict.fromkeys(item.kind for item in items):
        stay = [item.size for item in items if item.kind == kind and item.needed]
        go = [item.size for item in items if item.kind == kind and not item.needed]
        table.add_row(kind, str(len(stay)), decimal(sum(stay)), str(len(go)), decimal(sum(go)))
    return table
