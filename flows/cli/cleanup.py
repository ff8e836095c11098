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
    from tasks.monitoring.expiry import Expiry

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
    staged_days: Annotated[
        int | None,
        typer.Option(
            help="Versions that were staged and not promoted expire after N days.",
            show_default="TICKLINE_STAGED_DAYS, else 14",
            min=1,
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="List every item to delete, with its path.")
    ] = False,
) -> None:
    """Delete files that nothing needs and expire old candidates; dry run by default.

    Use it when the disk fills up. Without --apply it shows what it would delete.

    It keeps what these need: the champion, the previous version, every version
    that served, staged versions younger than --staged-days, open promotions,
    runs that are running, suspended or younger than --keep-days, and the last
    30 nights. It keeps everything younger than a day. It never touches MLflow's
    and Prefect's databases or the serving repository. A version that expired
    cannot be promoted any more. With TICKLINE_STORE it looks in the shared
    store too: one host's gc is enough for all.
    """
    settings = settings_from_environment()
    if staged_days is not None:
        settings = settings.model_copy(update={"staged_days": staged_days})
    from flows.runs.local import connected

    out.print("reading runs and versions from Prefect and MLflow...")
    with connected(settings):
        from tasks.monitoring.expiry import expire, find_expiring
        from tasks.monitoring.retention import delete, find
        from tasks.runs.lifecycle import exclusive

        keep, now = dt.timedelta(days=keep_days), dt.datetime.now(dt.UTC)

        def look() -> "tuple[list[Item], list[Expiry]]":
            versions = find_expiring(settings, keep=keep, now=now)
            folders = [one.folder for one in versions if one.folder and not one.needed]
            return find(settings, keep=keep, now=now, expiring=folders), versions

        if not apply:
            out.print(_table(*look(), details))
            out.print("dry run, nothing was deleted. To delete: [bold]tickline gc --apply[/]")
            return
        with exclusive(settings):  # no run may start and use what is about to be deleted
            items, versions = look()
            out.print(_table(items, versions, details))
            freed = expire(settings, versions, now)
            # a promotion that was opened meanwhile keeps its version: look again
            freed += delete(settings, find(settings, keep=keep, now=now))
            out.print(f"freed [bold]{decimal(freed)}")


def _table(items: "list[Item]", versions: "list[Expiry]", details: bool) -> Table:
    shared = any(item.kind.startswith("shared ") for item in items)
    table = Table(title="Home folder and shared store" if shared else "Home folder")
    found = [(item.kind, str(item.path), item.size, item.needed) for item in items]
    found += [(one.kind, one.name, one.size, one.needed) for one in versions]
    if details:
        for heading in ("to delete", "size", "path"):
            table.add_column(heading, overflow="fold")
        for kind, where, size, needed in found:
            if not needed:
                table.add_row(kind, decimal(size), where)
        return table
    for heading in ("", "keep", "size", "delete", "size"):
        table.add_column(heading, justify="left" if not heading else "right")
    for kind in dict.fromkeys(kind for kind, *_ in found):
        keep = [size for name, _, size, needed in found if name == kind and needed]
        drop = [size for name, _, size, needed in found if name == kind and not needed]
        kept = decimal(sum(keep)) if any(keep) or not keep else ""  # not measured
        sizes = (str(len(keep)), kept, str(len(drop)), decimal(sum(drop)))
        table.add_row(kind, *sizes)
    return table
