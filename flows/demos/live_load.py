"""Measure the live path on real processes: `python -m flows.demos.live_load [--data URI]`.

Broker, Redis, Triton, service and load generator run on this machine, in a temporary home folder.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.live.load import (
    DIRECT,
    DIRECT_P99_MS,
    cells,
    direct_measure,
    notes,
    rates,
    recorded,
    stages,
)
from flows.cli.options import market_uri, settings_from_environment
from flows.demos.live_rig import private, rig
from flows.demos.live_version import provide
from model_code.errors import StreamError
from model_code.live.tick_times import TickTimes, line, search
from model_code.settings import Settings

if TYPE_CHECKING:
    from model_code.repository.manifest import Manifest

out = Console(highlight=False)
SIMULATED = "simulated:?days=1&minutes=30"
FIND_S = 8.0
FIND_FROM = 400.0
FIND_MOST = 6400.0
BURST_S = 60.0
JOIN_S = 10.0  # until the service has its partitions
DIRECT_S = 5.0
DIRECT_FROM = 5000.0
DIRECT_MOST = 40_000.0


def main(
    data: Annotated[str | None, typer.Option(help="Market store; default: simulated.")] = None,
    rate: Annotated[float, typer.Option(help="Ticks a second of the fixed rows.")] = 200.0,
    duration: Annotated[float, typer.Option(help="Seconds of the row fixed.")] = 300.0,
    burst: Annotated[int, typer.Option(help="Ticks in a message of the other rows.", min=1)] = 4,
    servers: Annotated[
        str, typer.Option(help="Servers to run; tansu instead of mock: the demo broker.")
    ] = "mock,redis,triton",
    option: Annotated[
        list[str] | None, typer.Option(help="Another option of tickline live.")
    ] = None,
    search_rates: Annotated[bool, typer.Option("--find/--no-find")] = True,
) -> None:
    """Measure the live path on this machine; print a table and a line about the highest rate.

    Rows: fixed, one tick a message; burst, several; highest, the highest sustained
    rate of several; direct, path and engine alone.
    """
    source = settings_from_environment()
    uri = market_uri(data, source) or SIMULATED
    home = Path(tempfile.mkdtemp(prefix="tickline-live-"))
    try:
        settings = private(home)
        _, manifest = provide(settings, source, uri, out.print)
        names, options = servers.split(","), option or ()
        with measuring(settings, uri, names, options, manifest) as measure:
            fixed = measure(rate, duration, 1)
        rows = [("fixed", fixed)]
        if burst > 1:
            with measuring(settings, uri, names, options, manifest) as measure:
                rows.append(("burst", measure(rate, min(duration, BURST_S), burst)))
        best, failed = (fixed, None) if fixed.sustained() else (None, fixed)
        if search_rates:
            with measuring(settings, uri, names, options, manifest) as measure:
                best, failed = search(lambda at: measure(at, FIND_S, burst), FIND_FROM, FIND_MOST)
            rows += [("highest", best)] if best is not None else []
        embedded = search_direct(settings, uri, DIRECT_MOST if search_rates else DIRECT_FROM)
        alone = embedded[0] or embedded[1]
        assert alone is not None  # noqa: S101
        show([*rows, ("direct", alone)])
        out.print(f"{'tansu' if 'tansu' in names else 'mock'} broker; {burst} ticks in a message")
        out.print(f"model version {manifest.version}: {manifest.seen.feature_set}")
        out.print(line(best, failed), soft_wrap=True)
        out.print(line(*embedded, DIRECT), soft_wrap=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def measuring(
    settings: Settings,
    uri: str,
    names: Sequence[str],
    options: Sequence[str],
    manifest: "Manifest",
) -> "Iterator[Callable[[float, float, int], TickTimes]]":
    """A function of rate, seconds and ticks in a message, on servers of its own.

    A broker that holds many messages is slower, so no row pays for the one before.
    """
    from infra.live.load import WARM_S, Target, load
    from model_code.market.store import open_market

    with rig(settings, uri, names=names) as live:
        service = live.service(*options)
        target, store = Target(live.kafka, live.keys(manifest), live.pids()), open_market(uri)
        warm_s = JOIN_S

        def measure(rate: float, seconds: float, burst: int) -> TickTimes:
            nonlocal warm_s
            ticks = recorded(store, manifest)
            found = load(target, ticks, rate=rate, seconds=seconds, warm_s=warm_s, burst=burst)
            warm_s = WARM_S
            if not found.decided:
                raise StreamError(
                    f"no decision came at {rate:,.0f} ticks/s:\n{service.text[-1000:]}",
                    remedy="read what the service says above",
                )
            out.print(f"{rate:,.0f} ticks/s: p50 {found.ms(50):.2f}, p99 {found.ms(99):.2f} ms")
            return found

        yield measure


def search_direct(
    settings: Settings, uri: str, most: float
) -> tuple[TickTimes | None, TickTimes | None]:
    """The highest rate of path and engine alone, and the lowest that is not sustained."""
    from model_code.market.store import open_market

    measure = direct_measure(settings, open_market(uri), None, DIRECT_S)
    return search(measure, DIRECT_FROM, most, DIRECT_P99_MS)


def show(rows: Sequence[tuple[str, TickTimes]]) -> None:
    """Print the table, and where the time goes."""
    from model_code.machine import facts

    table = rates([], what="row")
    for what, one in rows:
        table.add_row(what, *cells(one))
    out.print(table)
    for what, one in rows:
        out.print(f"[bold]{what}")
        out.print(stages(one))
        for text in notes(one):
            out.print(text, soft_wrap=True)
    out.print(", ".join(f"{name} {value}" for name, value in facts().items()), soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
