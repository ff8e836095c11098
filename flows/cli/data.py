"""`tickline data describe`, `download`: inspect a market store, or download one."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table

from flows.cli.options import Data, market_uri, settings_from_environment
from model_code.errors import ConfigError

if TYPE_CHECKING:
    from model_code.market.describe import DayDescription

app = typer.Typer(no_args_is_help=True, help="Inspect or download market data.")
out = Console()
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


@app.command("describe")
def describe(
    data: Data = None,
    picture: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("market.png"),
) -> None:
    """Show instruments, dates, rows, gaps and quality of a market store; write a picture.

    Use it before you train on new data.
    """
    uri = market_uri(data, settings_from_environment()) or "simulated:"
    out.print(_description(uri, picture))


@app.command("download")
def download(
    symbol: Annotated[str, typer.Argument(help="Binance's symbol, e.g. BTCUSDT.")],
    dates: Annotated[list[str], typer.Argument(help="Dates, YYYY-MM-DD; training needs two.")],
    folder: Annotated[Path, typer.Option(help="Folder to write.")] = Path("archives"),
    base_url: Annotated[
        str | None,
        typer.Option(help="URL of the archives.", show_default="USD-margined futures"),
    ] = None,
) -> None:
    """Download Binance's public daily archives of best quotes and trades; verify checksums.

    Use it to get real ticks. It resumes an interrupted download. Then train on
    the folder: [bold]tickline nightly --data archives[/]
    """
    from model_code.market.binance_download import BASE_URL
    from model_code.market.binance_download import download as fetch

    for date in [_date(text) for text in dates]:  # a wrong one is an error before any download
        for path in fetch(symbol, date, folder, base_url=base_url or BASE_URL):
            out.print(f"complete: {path}")


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"not a date: {text!r}", remedy="write it as YYYY-MM-DD") from error


def _description(uri: str, picture: Path) -> RenderableType:
    """Return a table of every instrument-day of the store; write the picture to `picture`.

    Raises:
        MarketError: the store cannot be opened or read.
        StorageError: the picture cannot be written.
    """
    from model_code.market.describe import describe, plot
    from model_code.market.store import open_market

    description = describe(open_market(uri))
    plot(description, picture)
    label = " [bold magenta](SIMULATED)[/]" if description.simulated else ""
    table = Table(title=f"{description.uri}  {description.kind}{label}")
    table.add_column("date", no_wrap=True)
    table.add_column("instrument", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for day in description.days:
        table.add_row(str(day.date), day.symbol, *_cells(day))
    return Group(table, f"picture: {picture}")


def _cells(day: "DayDescription") -> list[str]:
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
