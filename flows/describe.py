"""Look at a market store before trusting it: a table and a picture."""

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table

from model_code.market.describe import DayDescription, describe, plot
from model_code.market.store import open_market

HEADINGS = (
    "rows",
    "from",
    "to",
    "ticks/s",
    "largest gap s",
    "spread bps",
    "at tightest",
    "crossed",
    "backwards",
    "missing",
    "trades",
    "labelled",
)


def describe_market(uri: str, picture: Path) -> RenderableType:
    """Table of every instrument-day of the store; the picture is written to `picture`.

    Raises:
        MarketError: the store cannot be opened or read.
        StorageError: the picture cannot be written.
    """
    description = describe(open_market(uri))
    plot(description, picture)
    made_up = " [bold magenta](SIMULATED)[/]" if description.simulated else ""
    table = Table(title=f"{description.uri}  {description.kind}{made_up}")
    table.add_column("date", no_wrap=True)
    table.add_column("instrument", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for day in description.days:
        table.add_row(str(day.date), day.symbol, *_cells(day))
    return Group(table, f"picture: {picture}")


def _cells(day: DayDescription) -> list[str]:
    times = [f"{moment:%H:%M:%S}" if moment else "–" for moment in (day.first, day.last)]
    spread = "–" if day.spread_bps is None else f"{day.spread_bps:.3g}"
    tightest = "–" if day.tightest is None else f"{day.tightest:.0%}"
    faults = [_fault(count) for count in (day.crossed, day.backwards, day.missing)]
    return [
        f"{day.rows:,}",
        *times,
        f"{day.ticks_per_s:,.0f}",
        f"{day.largest_gap_s:.3g}",
        spread,
        tightest,
        *faults,
        f"{day.trades:,}",
        f"{day.labelled:,}",
    ]


def _fault(count: int) -> str:
    return f"[red]{count:,}[/]" if count else "0"
