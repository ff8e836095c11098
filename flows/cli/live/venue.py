"""An exchange's ticks for the commands of the live path."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.options import expanded, read_spec
from model_code.errors import ConfigError

if TYPE_CHECKING:
    from infra.live.feeds import Feed, Receiver
    from infra.live.venues.binance import Binance

VenueName = Literal["binance"]
Venue = Annotated[
    VenueName | None,
    typer.Option(help="Take an exchange's ticks (docs/live.md).", show_default="recorded days"),
]
VenueSpec = Annotated[
    Path | None,
    typer.Option(
        help="YAML of a BinanceSpec: addresses and times.",
        show_default="the public addresses",
        callback=expanded,
    ),
]


def open_venue(
    symbols: list[str] | None, spec: Path | None, say: Callable[[str], None]
) -> "Binance":
    """The exchange's feed.

    Raises:
        ConfigError: the specification cannot be read, or a symbol is none of the exchange.
    """
    from infra.live.venues.binance import Binance
    from infra.live.venues.spec import BinanceSpec

    if not symbols:
        raise ConfigError("no instruments", remedy="name them: --symbols BTCUSDT.spot")
    return Binance(read_spec(BinanceSpec, spec, {}), symbols, say)


async def run_feed(
    feed: "Feed", receiver: "Receiver", every_s: float, serve: Callable[[], None]
) -> None:
    """Run a feed until SIGTERM or Ctrl-C.

    Args:
        feed: to run.
        receiver: takes its ticks.
        every_s: time between two calls of `serve`.
        serve: called in the same event loop; an error of it ends the feed.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, feed.stop)
    running = asyncio.create_task(feed.run(receiver))
    try:
        while not running.done():
            serve()
            await asyncio.wait({running}, timeout=every_s)
    finally:
        feed.stop()
        with suppress(asyncio.CancelledError):
            await running
