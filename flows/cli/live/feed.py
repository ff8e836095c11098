"""`tickline feed`: publish recorded days, or an exchange's ticks, to Kafka."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flows.cli.live.replay import days_of, pacer_of
from flows.cli.live.streams import (
    SPEED,
    Bootstrap,
    Dates,
    Demo,
    Symbols,
    read_service_spec,
)
from flows.cli.live.venue import Venue, VenueSpec, open_venue, run_feed
from flows.cli.options import PANELS, Data, SpecFile, market_uri, settings_from_environment
from model_code.errors import ConfigError, StreamError

if TYPE_CHECKING:
    from infra.live.kafka.clients import KafkaSpec
    from infra.live.kafka.producer import Outbox
    from infra.live.venues.binance import Binance
    from model_code.live.messages import Tick

app = typer.Typer()
out = Console()
FLUSH_S = 30.0
POLL_S = 0.05


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
    speed: Annotated[str, typer.Option(help=SPEED)] = "1",
    symbols: Symbols = None,
    date: Dates = None,
    venue: Venue = None,
    venue_spec: VenueSpec = None,
    spec: SpecFile = None,
    bootstrap: Bootstrap = None,
    demo: Demo = False,
) -> None:
    """Publish recorded days to Kafka, as a feed handler would, or an exchange's ticks.

    The messages and their order are those of [bold]tickline replay[/]. Instruments
    that look at each other have one key, so that their order holds. Each start is
    a new session of the feed handler. Stamps stay as recorded (docs/live.md).

    With --venue the ticks are the exchange's own, until Ctrl-C or SIGTERM:
    [bold]tickline feed --venue binance --symbols BTCUSDT.spot[/]. Leaders of the
    instruments are subscribed to as well. A gap of the exchange or a new
    connection makes the service fill its windows again.
    """
    from flows.runs.replay_model import find_version
    from infra.live.kafka.clients import create_topics
    from infra.live.kafka.feed import publish
    from infra.live.kafka.producer import Outbox
    from model_code.live.groups import groups
    from model_code.live.recorded import Feed, played
    from model_code.market.store import open_market

    pacer = pacer_of(speed)
    settings = settings_from_environment()
    kafka = read_service_spec(spec, bootstrap, demo=demo).kafka
    _, manifest = find_version(settings, version, None)
    if venue is not None:
        if data is not None or date:
            raise ConfigError("--venue excludes --data and --date", remedy="give one of them")
        members = groups(manifest.seen.leaders, symbols or ())
        open_feed = open_venue([one for some in members.values() for one in some], venue_spec, _say)
        _publish_venue(open_feed, kafka, members)
        return
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
    _flush(outbox, kafka)
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


def _publish_venue(
    source: "Binance", kafka: "KafkaSpec", members: dict[str, tuple[str, ...]]
) -> None:
    """Publish an exchange's ticks until the command is stopped."""
    from infra.live.feeds import Publisher
    from infra.live.kafka.clients import create_topics
    from infra.live.kafka.producer import Outbox

    create_topics(kafka, kafka.ticks[:1])
    outbox = Outbox(kafka, _say)
    keys = {symbol: key for key, names in members.items() for symbol in names}
    receiver = Publisher(outbox, kafka.ticks[0], keys)
    for key, names in members.items():
        _say(f"key {key}: {', '.join(names)}")
    _say(f"{', '.join(one.url for one in source.connections)} -> {kafka.ticks[0]}")
    try:
        asyncio.run(run_feed(source, receiver, POLL_S, outbox.poll))
    finally:
        _say(source.state)
        _say(f"{receiver.sent:,} messages in {kafka.ticks[0]}, dropped {receiver.dropped:,}")
    _flush(outbox, kafka)
    _say(f"{outbox.delivered:,} confirmed")


def _flush(outbox: "Outbox", kafka: "KafkaSpec") -> None:
    if not outbox.flush(FLUSH_S):
        raise StreamError(
            f"{len(outbox):,} messages were not confirmed within {FLUSH_S:g} s",
            where=kafka.bootstrap,
            remedy="check the broker, then feed again",
        )


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def _paced(ticks: "Iterable[Tick]", pace: Callable[[int], None] | None) -> "Iterator[Tick]":
    for tick in ticks:
        if pace is not None:
            pace(tick.local_ns)
        yield tick
