"""`tickline feed`: publish recorded days to Kafka, as a feed handler would."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flows.cli.live.replay import days_of, pacer_of
from flows.cli.live.streams import Bootstrap, Demo, read_service_spec
from flows.cli.options import PANELS, Data, SpecFile, market_uri, settings_from_environment
from model_code.errors import StreamError

if TYPE_CHECKING:
    from model_code.live.messages import Tick

app = typer.Typer()
out = Console()
FLUSH_S = 30.0


@app.command(rich_help_panel=PANELS.serving)
def feed(
    data: Data = None,
    version: Annotated[
        int | None,
        typer.Option(
            help="Group the instruments by the leaders of this version.",
            show_default="the serving one, else the newest staged",
        ),
    ] = None,
    speed: Annotated[str, typer.Option(help="max, or a multiple of real time: 1, 10.")] = "1",
    symbols: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these instruments and their leaders; repeat for several.", show_default="all"
        ),
    ] = None,
    date: Annotated[
        list[str] | None,
        typer.Option(help="Only this date, YYYY-MM-DD; repeat for several.", show_default="all"),
    ] = None,
    spec: SpecFile = None,
    bootstrap: Bootstrap = None,
    demo: Demo = False,
) -> None:
    """Publish recorded days to Kafka, as a feed handler would.

    The messages and their order are those of [bold]tickline replay[/]. Instruments
    that look at each other have one key, so that their order holds. Each start is
    a new session of the feed handler. Stamps stay as recorded (docs/live.md).
    """
    from flows.runs.replay_model import find_version
    from infra.live.feed import publish
    from infra.live.kafka import create_topics
    from infra.live.producer import Outbox
    from model_code.live.groups import groups
    from model_code.live.recorded import Feed, played
    from model_code.market.store import open_market

    pacer = pacer_of(speed)
    settings = settings_from_environment()
    kafka = read_service_spec(spec, bootstrap, demo=demo).kafka
    _, manifest = find_version(settings, version, None)
    store = open_market(market_uri(data, settings) or "simulated:")
    catalog = sorted(days_of(store, manifest, symbols, date), key=lambda day: day.date)
    members = groups(manifest.seen.leaders, {day.symbol for day in catalog})
    keys = {symbol: key for key, names in members.items() for symbol in names}
    create_topics(kafka, kafka.ticks[:1])
    outbox = Outbox(kafka, lambda line: out.print(line, markup=False))
    messages = Feed(session=time.time_ns() // 1_000_000)
    begun, total = time.perf_counter(), 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=out, transient=True) as bar:
        for day, group in groupby(catalog, key=lambda day: day.date):
            days = [played(store, one)[0] for one in group]
            task = bar.add_task(str(day), total=sum(one.messages for one in days))
            ticks = _paced(messages.messages(days), pacer())
            total += publish(outbox, kafka.ticks[0], ticks, keys, partial(bar.advance, task))
    if not outbox.flush(FLUSH_S):
        raise StreamError(
            f"{len(outbox):,} messages were not confirmed within {FLUSH_S:g} s",
            where=kafka.bootstrap,
            remedy="check the broker, then feed the days again",
        )
    seconds = time.perf_counter() - begun
    if store.simulated:
        out.print("SIMULATED MARKET: the ticks are simulated")
    for key, names in members.items():
        out.print(f"key {key}: {', '.join(names)}", markup=False, soft_wrap=True)
    out.print(
        f"{total:,} messages in {kafka.ticks[0]}, {outbox.delivered:,} confirmed, "
        f"{total / seconds:,.0f} a second",
        soft_wrap=True,
    )


def _paced(ticks: "Iterable[Tick]", pace: Callable[[int], None] | None) -> "Iterator[Tick]":
    for tick in ticks:
        if pace is not None:
            pace(tick.local_ns)
        yield tick
