"""Measure the live path on real processes: `python -m flows.demos.live_load [--data URI]`.

Broker, Redis, Triton, service and load generator run on this machine, in a temporary home folder.
"""

import shutil
import tempfile
from collections.abc import Sequence
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
from flows.demos.live_rig import Rig, private, rig
from flows.demos.live_version import provide
from model_code.live.tick_times import TickTimes, line, search

if TYPE_CHECKING:
    from model_code.repository.manifest import Manifest

out = Console(highlight=False)
SIMULATED = "simulated:?days=1&minutes=30"
FIND_S = 8.0
FIND_FROM = 400.0
FIND_MOST = 6400.0
DIRECT_S = 5.0
DIRECT_FROM = 5000.0
DIRECT_MOST = 40_000.0


def main(
    data: Annotated[str | None, typer.Option(help="Market store; default: simulated.")] = None,
    rate: Annotated[float, typer.Option(help="Ticks a second of the first row.")] = 200.0,
    duration: Annotated[float, typer.Option(help="Seconds of the first row.")] = 300.0,
    servers: Annotated[str, typer.Option(help="Servers to run.")] = "tansu,redis,triton",
    option: Annotated[
        list[str] | None, typer.Option(help="Another option of tickline live.")
    ] = None,
    search_rates: Annotated[bool, typer.Option("--find/--no-find")] = True,
) -> None:
    """Print a row for the rate, for the highest sustained rate, and for path and engine alone."""
    source = settings_from_environment()
    uri = market_uri(data, source) or SIMULATED
    home = Path(tempfile.mkdtemp(prefix="tickline-live-"))
    try:
        settings = private(home)
        _, manifest = provide(settings, source, uri, out.print)
        with rig(settings, uri, names=servers.split(",")) as live:
            play(live, manifest, rate, duration, option or (), search_rates=search_rates)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def play(
    live: Rig,
    manifest: "Manifest",
    rate: float,
    duration: float,
    options: Sequence[str],
    *,
    search_rates: bool,
) -> None:
    """Measure and print."""
    from infra.live.load import Target, load
    from model_code.machine import facts
    from model_code.market.store import open_market

    store = open_market(live.store)
    service = live.service(*options)
    target = Target(live.kafka, live.keys(manifest), live.pids())

    def measure(seconds: float, at: float) -> TickTimes:
        ticks = recorded(store, manifest)
        found = load(target, ticks, rate=at, seconds=seconds)
        out.print(f"{at:,.0f} ticks/s: p50 {found.ms(50):.2f}, p99 {found.ms(99):.2f} ms")
        return found

    fixed = measure(duration, rate)
    best, failed = (fixed, None) if fixed.sustained() else (None, fixed)
    if search_rates:
        best, failed = search(lambda at: measure(FIND_S, at), FIND_FROM, FIND_MOST)
    service.stop()
    direct = direct_measure(live.settings, store, None, DIRECT_S)
    most = DIRECT_MOST if search_rates else DIRECT_FROM
    embedded = search(direct, DIRECT_FROM, most, DIRECT_P99_MS)
    rows = [("fixed", fixed)]
    rows += [("highest", best)] if best is not None and best is not fixed else []
    last = embedded[0] or embedded[1]
    assert last is not None  # noqa: S101
    rows += [("direct", last)]
    table = rates([], what="row")
    for what, one in rows:
        table.add_row(what, *cells(one))
    out.print(table)
    for _, one in rows:
        out.print(stages(one))
        for text in notes(one):
            out.print(text, soft_wrap=True)
    out.print(", ".join(f"{name} {value}" for name, value in facts().items()), soft_wrap=True)
    out.print(f"model version {manifest.version}: {manifest.seen.feature_set}")
    out.print(line(best, failed), soft_wrap=True)
    out.print(line(*embedded, DIRECT), soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
