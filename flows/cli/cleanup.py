"""`tickline gc`: free disk space; by default only show what would be deleted."""

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
        bool, typer.Option("--apply", help="Delete. Without it nothing is deleted.")
    ] = False,
    keep_days: Annotated[
        int, typer.Option(help="Keep what runs of the last N days used.", min=1)
    ] = 30,
    details: Annotated[
        bool, typer.Option("--details", help="List every item to delete, with its path.")
    ] = False,
) -> None:
    """Delete artefacts, stage results, checkpoints and logs that nothing needs; dry run by default.

    Use it when the disk fills up. Without --apply it shows what it would delete.

    It keeps what these need: the champion, the previous version, staged and
    serving versions, runs that are running, suspended or younger than
    --keep-days. It keeps everything younger than a day. It never touches
    MLflow's and Prefect's databases, MLflow's files or the model repositories.
    """
    settings = settings_from_environment()
    from flows.runs.local import connected

    out.print("reading runs and versions from Prefect and MLflow...")
    with connected(settings):
        from model_code.monitoring.retention import delete
        from tasks.monitoring.retention import find
        from tasks.runs.lifecycle import exclusive

        keep, now = dt.timedelta(days=keep_days), dt.datetime.now(dt.UTC)
        if not apply:
            items = find(settings, keep=keep, now=now)
            out.print(_table(items, details))
            out.print("dry run, nothing was deleted. To delete: [bold]tickline gc --apply[/]")
            return
        with exclusive(settings):  # no run may start and use what is about to be deleted
            items = find(settings, keep=keep, now=now)
            out.print(_table(items, details))
            out.print(f"freed [bold]{decimal(delete(items))}")


def _table(items: "list[Item]", details: bool) -> Table:
    table = Table(title="Home folder")
    if details:
        for heading in ("to delete", "size", "path"):
            table.add_column(heading, overflow="fold")
        for item in items:
            if not item.needed:
                table.add_row(item.kind, decimal(item.size), str(item.path))
        return table
    for heading in ("", "keep", "size", "delete", "size"):
        table.add_column(heading, justify="left" if not heading else "right")
    for kind in dict.fromkeys(item.kind for item in items):
        keep = [item.size for item in items if item.kind == kind and item.needed]
        drop = [item.size for item in items if item.kind == kind and not item.needed]
        sizes = (str(len(keep)), decimal(sum(keep)), str(len(drop)), decimal(sum(drop)))
        table.add_row(kind, *sizes)
    return table
