"""`tickline data describe`, `download`: look at a market store before trusting it, or fetch one."""

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

app = typer.Typer(no_args_is_help=True, help="Look at market data, or fetch it.")
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
    picture: Annotated[Path, typer.Option(help="Where to draw the picture (PNG).")] = Path(
        "market.png"
    ),
) -> None:
    """Print instruments, dates, rows, gaps and quality of a market store, and draw a picture."""
    uri = market_uri(data, settings_from_environment()) or "simulated:"
    out.print(_description(uri, picture))


@app.command("download")
def download(
    symbol: Annotated[str, typer.Argument(help="As Binance writes it, e.g. BTCUSDT.")],
    dates: Annotated[list[str], typer.Argument(help="Dates, YYYY-MM-DD; at least two to train.")],
    folder: Annotated[Path, typer.Option(help="Where the archives go.")] = Path("archives"),
    base_url: Annotated[
        str | None,
        typer.Option(help="Folder of the archives.", show_default="USD-margined futures"),
    ] = None,
) -> None:
    """Fetch Binance's public daily archives of best quotes and trades; verify their checksums.

    Resumes a broken download. Then: tickline nightly --data FOLDER
    """
    from model_code.market.binance_download import BASE_URL
    from model_code.market.binance_download import download as fetch

    for text in dates:
        for path in fetch(symbol, _date(text), folder, base_url=base_url or BASE_URL):
            out.print(f"have {path}")


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"not a date: {text!r}", remedy="write it as YYYY-MM-DD") from error


def _description(uri: str, picture: Path) -> RenderableType:
    """Table of every instrument-day of the store; the picture is written to `picture`.

    Raises:
        MarketError: the store cannot be opened or read.
        StorageError: the picture cannot be written.
    """
    from model_code.market.describe import describe, plot
    from model_code.market.store import open_market

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
