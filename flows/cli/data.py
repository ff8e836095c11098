"""`tickline data describe`, `download`, `import`: inspect a market store, get one, convert one."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from flows.cli.options import Data, expanded, market_uri, settings_from_environment
from model_code.errors import ConfigError, DataError

if TYPE_CHECKING:
    from model_code.market.describe import DayDescription, Description
    from model_code.market.readers.chunked import ChunkedStore
    from model_code.market.readers.hive_import import ImportedDay

app = typer.Typer(no_args_is_help=True, help="Inspect, download or convert market data.")
out = Console()
PICTURE = "market.png"
# (heading, key of `_cells`); each table fits 80 columns
ROWS = ("rows", "from", "to", "ticks/s", "gap s", "trades")
QUALITY = ("spread", "tightest", "crossed", "back", "missing", "labels")
WIDE = (*ROWS, *QUALITY, "repeats", "clock")


@app.command("describe")
def describe(
    data: Data = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="One table with all columns, wider than 80.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="PNG file to write.",
            show_default=f"{PICTURE} in the home folder",
            callback=expanded,
        ),
    ] = None,
) -> None:
    """Show instruments, dates, rows, gaps and quality of a market store; write a picture.

    Use it before you train on new data. It names what was assumed (profile,
    aggressor, clock) and every file that is not read.
    """
    settings = settings_from_environment()
    uri = market_uri(data, settings) or "simulated:"
    for part in _description(uri, picture or settings.home / PICTURE, wide=wide):
        out.print(part, soft_wrap=isinstance(part, str))


@app.command("download")
def download(
    symbol: Annotated[str, typer.Argument(help="Binance's symbol, e.g. BTCUSDT.")],
    dates: Annotated[list[str], typer.Argument(help="Dates, YYYY-MM-DD; training needs two.")],
    folder: Annotated[Path, typer.Option(help="Folder to write.", callback=expanded)] = Path(
        "archives"
    ),
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
            out.print(f"complete: {escape(str(path))}")


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(help="Folder, file or URI, e.g. archive/ or databento:archive/."),
    ],
    folder: Annotated[
        Path, typer.Argument(help="Folder to write, in the hive layout.", callback=expanded)
    ],
    mapping: Annotated[
        Path | None,
        typer.Option(
            help="YAML that names the columns of your own Parquet.",
            show_default="mapping.yaml in SOURCE",
            callback=expanded,
        ),
    ] = None,
) -> None:
    """Convert Databento, Tardis, LOBSTER or your own Parquet to Parquet by instrument and day.

    Use it to read a large archive only once. Every row is written or counted with
    the reason. A second run writes only what changed. Then train on the folder:
    [bold]tickline nightly --data FOLDER[/]
    """
    from model_code.market.readers.hive_import import import_days

    store = _convertible(source, mapping)
    done: list[ImportedDay] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("counting rows", total=None)
        total = len(store.catalog())
        for day in import_days(
            store,
            folder,
            before=lambda day: bar.update(
                task, total=total, description=escape(f"{day.symbol} {day.date}")
            ),
        ):
            done.append(day)
            bar.advance(task)
    for part in _import_report(store, done):
        out.print(part, soft_wrap=isinstance(part, str))
    refused = [day for day in done if day.refused]
    if refused:
        raise DataError(
            f"refused instrument-days: {len(refused)} of {len(done)}, for the reasons above",
            where=source,
            remedy="correct their files and run the same command again; the others are written",
        )
    out.print(f"next: tickline data describe --data {escape(str(folder))}", soft_wrap=True)


def _convertible(source: str, mapping: Path | None) -> "ChunkedStore":
    """The store at a URI, if its format is one to convert.

    Raises:
        ConfigError: it can be used as it is, or a mapping is given for another format.
        MarketError: it cannot be opened.
    """
    from model_code.market.readers.chunked import ChunkedStore
    from model_code.market.readers.named import Named, split
    from model_code.market.store import open_market

    named = split(source)
    if mapping:
        if named and (named.kind != "parquet" or named.mapping):
            raise ConfigError(
                "--mapping is for your own Parquet, and is given once",
                where=source,
                remedy="write parquet:PATH, or leave --mapping out",
            )
        source = str(Named("parquet", named.place if named else source, str(mapping)))
    store = open_market(source)
    if not isinstance(store, ChunkedStore):
        raise ConfigError(
            f"the format {store.KIND} needs no import",
            where=source,
            remedy=f"use it as it is: tickline nightly --data {source}",
        )
    return store


def _import_report(store: "ChunkedStore", days: "list[ImportedDay]") -> Iterator[RenderableType]:
    """A table of the days, then the reasons for what is left out or faulty."""
    table = Table(title=escape(store.uri), box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("date", no_wrap=True)
    table.add_column("instrument", overflow="fold")
    for heading in ("quotes", "trades", "left out", "faulty", "result"):
        table.add_column(heading, justify="right", no_wrap=True)
    for day in days:
        counts = (day.quotes, day.trades, sum(day.left_out.values()), day.quarantined)
        known = 0 if day.refused else 2 if day.unchanged else 4
        cells = [f"{count:,}" if i < known else "–" for i, count in enumerate(counts)]
        result = "refused" if day.refused else "unchanged" if day.unchanged else "written"
        table.add_row(day.date, escape(day.symbol), *cells, result)
    yield table
    yield "left out: not written; faulty: written, and quarantined by validation"
    for day in days:
        name = f"{day.symbol} {day.date}"
        if day.refused:
            yield escape(f"{name} refused: {day.refused}")
        for reason, count in day.faults.items():
            yield escape(f"{name}: {count:,} quotes faulty, {reason}")
        if day.trade_faults:
            yield escape(f"{name}: {day.trade_faults:,} trades repeated, of size 0 or bad")
        for note in day.notes:
            yield escape(f"{name}: {note}")
    from model_code.market.readers.files import summarize

    for item in summarize(store.passed_over()):
        yield escape(item)


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"not a date: {text!r}", remedy="write it as YYYY-MM-DD") from error


def _description(uri: str, picture: Path, *, wide: bool) -> Iterator[RenderableType]:
    """Yield tables of every instrument-day and what was assumed; write the picture.

    Raises:
        MarketError: the store cannot be opened or read, or is empty.
        StorageError: the picture cannot be written.
    """
    from model_code.market.describe import describe, plot
    from model_code.market.store import open_market

    description = describe(open_market(uri))
    plot(description, picture)
    label = " [bold magenta](SIMULATED)[/]" if description.simulated else ""
    title = f"{escape(description.uri)}  {description.kind}{label}"
    for headings in (WIDE,) if wide else (ROWS, QUALITY):
        table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
        table.add_column("date", no_wrap=True)
        table.add_column("instrument", overflow="fold")
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
        for day in description.days:
            cells = _cells(day)
            table.add_row(str(day.date), escape(day.symbol), *(cells[name] for name in headings))
        yield table
    yield from map(escape, _assumed(description))
    yield f"picture: {escape(str(picture))}"


def _assumed(description: "Description") -> Iterator[str]:
    """What was assumed for each instrument, and what was not read."""
    by = "stated by the store" if description.stated else "assumed; choose with --profile"
    yield "spread: median, bps of the mid; tightest: share of rows; back: clock goes back"
    yield f"profile: {description.profile} ({by})"
    for symbol in sorted({day.symbol for day in description.days}):
        own = [day for day in description.days if day.symbol == symbol]
        aggressor = " and ".join(dict.fromkeys(day.notes.aggressor for day in own))
        clock = " and ".join(dict.fromkeys(day.notes.resolution for day in own))
        yield f"{symbol}: time resolution {clock}; aggressor: {aggressor}"
        repeats = sum(day.repeats for day in own)
        if repeats:
            yield f"{symbol}: {repeats:,} rows repeat the row above"
        for note in dict.fromkeys(note for day in own for note in day.notes.warnings):
            yield f"{symbol}: {note}"
    yield from description.passed_over


def _cells(day: "DayDescription") -> dict[str, str]:
    spread = "–" if day.spread_bps is None else f"{day.spread_bps:.3g}"
    tightest = "–" if day.tightest is None else f"{day.tightest:.0%}"
    return {
        "rows": f"{day.rows:,}",
        "from": f"{day.first:%H:%M:%S}" if day.first else "–",
        "to": f"{day.last:%H:%M:%S}" if day.last else "–",
        "ticks/s": f"{day.ticks_per_s:,.0f}",
        "gap s": f"{day.largest_gap_s:.3g}",
        "trades": f"{day.trades:,}",
        "labels": f"{day.labelled:,}",
        "spread": spread,
        "tightest": tightest,
        "crossed": _fault(day.crossed),
        "back": _fault(day.backwards),
        "missing": _fault(day.missing),
        "repeats": f"{day.repeats:,}",
        "clock": day.notes.resolution,
    }


def _fault(count: int) -> str:
    return f"[red]{count:,}[/]" if count else "0"
