"""`tickline load`: recorded ticks at a fixed rate, and how long each decision took."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from flows.cli.live.replay import days_of
from flows.cli.live.streams import Bootstrap, Demo, read_service_spec
from flows.cli.options import PANELS, Data, SpecFile, market_uri, settings_from_environment
from model_code.errors import ConfigError
from model_code.settings import FEATURE_COUNT, MAX_BATCH_SIZE, SEQUENCE_LENGTH, Settings

if TYPE_CHECKING:
    from model_code.live.messages import Tick
    from model_code.live.tick_times import TickTimes
    from model_code.market.store import MarketStore
    from model_code.repository.manifest import Manifest

app = typer.Typer()
out = Console()
MOST_RATE = 50_000.0
DIRECT = "direct, in process"
DIRECT_P99_MS = 1.0


@app.command(rich_help_panel=PANELS.serving)
def load(
    data: Data = None,
    rate: Annotated[float, typer.Option(help="Ticks a second.", min=1, max=MOST_RATE)] = 200.0,
    seconds: Annotated[float, typer.Option(help="How long to measure each rate.", min=1)] = 30.0,
    find: Annotated[
        bool,
        typer.Option("--find", help="Find the highest sustained rate, from the given one on."),
    ] = False,
    direct: Annotated[
        bool,
        typer.Option(
            "--direct", help="Path and engine in this process, without broker and model server."
        ),
    ] = False,
    burst: Annotated[
        int, typer.Option(help="Ticks of one instant, in one message.", min=1, max=100)
    ] = 1,
    version: Annotated[
        int | None,
        typer.Option(
            help="Group the instruments by the leaders of this version; with --direct, decide "
            "with it.",
            show_default="the serving one, else the newest staged",
        ),
    ] = None,
    process: Annotated[
        list[str] | None,
        typer.Option(
            help="Also count the processor time of NAME=PID; repeat for several.",
            show_default="the services of tickline up",
        ),
    ] = None,
    spec: SpecFile = None,
    bootstrap: Bootstrap = None,
    demo: Demo = False,
) -> None:
    """Send recorded ticks at a fixed rate; show how long each decision took, by stage.

    Open loop: a tick's time counts from the moment it was due. Each tick gets that
    moment as its stamp. tickline live must be running, except with --direct.
    A rate is sustained if its p99 stays below 10 ms, with --direct below 1 ms
    (docs/benchmarks.md).
    """
    from flows.runs.replay_model import find_version
    from infra.live.load import Target
    from infra.live.load import load as measure_load
    from model_code.live.groups import groups
    from model_code.live.tick_times import P99_MS, line, search
    from model_code.market.store import open_market

    settings = settings_from_environment()
    _, manifest = find_version(settings, version, None)
    store = open_market(market_uri(data, settings) or "simulated:")
    if store.simulated:
        out.print("SIMULATED MARKET: the ticks are simulated")
    if direct:
        measure = direct_measure(settings, store, version, seconds)
        limit, what = DIRECT_P99_MS, DIRECT
    else:
        kafka = read_service_spec(spec, bootstrap, demo=demo).kafka
        members = groups(manifest.seen.leaders, {day.symbol for day in store.catalog()})
        keys = {symbol: key for key, names in members.items() for symbol in names}
        target = Target(kafka, keys, _processes(settings, process))
        limit, what = P99_MS, ""

        def measure(rate: float) -> "TickTimes":
            return measure_load(
                target, recorded(store, manifest), rate=rate, seconds=seconds, burst=burst
            )

    found: list[TickTimes] = []

    def keep(rate: float) -> "TickTimes":
        found.append(measure(rate))
        return found[-1]

    if find:
        best, failed = search(keep, rate, MOST_RATE, limit)
    else:
        one = keep(rate)
        best, failed = (one, None) if one.sustained(limit) else (None, one)
    out.print(rates(found))
    out.print(stages(best or found[-1]))
    for text in notes(best or found[-1]):
        out.print(text, markup=False, highlight=False, soft_wrap=True)
    out.print(line(best, failed, what), markup=False, highlight=False, soft_wrap=True)


def recorded(store: "MarketStore", manifest: "Manifest") -> "Iterator[Tick]":
    """The ticks of all days, again and again, in a session of its own."""
    from model_code.live.recorded import endless

    return endless(store, days_of(store, manifest, None, None), time.time_ns() // 1_000_000)


def direct_measure(
    settings: Settings, store: "MarketStore", version: int | None, seconds: float
) -> "Callable[[float], TickTimes]":
    """What measures one rate with path and engine in this process."""
    from flows.runs.replay_model import find_version, load_model
    from model_code.live.direct_load import direct_load
    from model_code.live.groups import groups
    from model_code.live.path import LivePath
    from model_code.live.state import Group

    folder, manifest = find_version(settings, version, None)
    model = load_model(folder, manifest)
    symbols = {day.symbol for day in store.catalog()}
    everyone = sorted(
        name for names in groups(manifest.seen.leaders, symbols).values() for name in names
    )
    clock = time.perf_counter_ns
    for size in range(1, MAX_BATCH_SIZE + 1):  # an engine prepares each size once
        model.predictor.predict(np.zeros((size, SEQUENCE_LENGTH, FEATURE_COUNT), np.float32))

    def measure(rate: float) -> "TickTimes":
        warm = max(64 * len(everyone), int(rate))
        ticks = list(islice(recorded(store, manifest), warm + int(rate * seconds)))
        group = Group(model.seen, everyone, model.spec.reset_gap_s)
        path = LivePath(group, threshold=model.threshold, model_version=model.version, clock=clock)
        return direct_load(path, model.predictor, ticks, rate=rate, clock=clock, warm=warm)

    return measure


def _processes(settings: Settings, named: list[str] | None) -> dict[str, int]:
    """Pid by name: as given, else those of the stack; and this process.

    Raises:
        ConfigError: one is not NAME=PID.
    """
    import os

    from infra import stack_state

    found = {"load": os.getpid()}
    for text in named or ():
        name, _, pid = text.partition("=")
        if not name or not pid.isdigit():
            raise ConfigError(f"--process is {text!r}, expected NAME=PID", remedy="broker=1234")
        found[name] = int(pid)
    if named is None and (state := stack_state.read(settings)) is not None:
        found |= {one.name: one.pid for one in state.services if one.pid is not None}
    return found


def rates(found: "list[TickTimes]", what: str = "") -> Table:
    """A row for each rate."""
    table = Table(title="Tick to decision, ms", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    if what:
        table.add_column(what, no_wrap=True)
    headings = ("ticks/s", "sec", "quotes", "decided", "p50", "p99", "p99.9", "own", "busy")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        table.add_row(*cells(one))
    return table


def cells(one: "TickTimes") -> list[str]:
    """The cells of a rate."""
    levels = [_ms(one.ms(level)) for level in (50, 99, 99.9)]
    counts = [f"{one.rate:,.0f}", f"{one.seconds:.0f}", f"{one.quotes:,}", f"{one.decided:,}"]
    return [*counts, *levels, _ms(one.own_ms), f"{one.busy:.0%}" if one.busy else "–"]


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def stages(one: "TickTimes") -> Table:
    """Where the time goes."""
    table = Table(
        title=f"By stage at {one.rate:,.0f} ticks/s, ms",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("stage")
    for heading in ("p50", "p99", "p99.9"):
        table.add_column(heading, justify="right")
    for name in (*one.stages, "all"):
        if name == "all":
            table.add_section()
        wanted = () if name == "all" else (name,)
        table.add_row(name, *(f"{one.ms(level, *wanted):.3f}" for level in (50, 99, 99.9)))
    return table


def notes(one: "TickTimes") -> list[str]:
    """Processor time of each process, who answered, and how late ticks were sent."""
    found = []
    if one.cpu_s and one.ticks:
        each = (f"{name} {1e6 * s / one.ticks:,.0f}" for name, s in one.cpu_s.items())
        found.append(f"processor time per tick, us: {', '.join(each)}")
    by = (f"{count:,} {' '.join(flags) or 'routed'}" for flags, count in one.answered_by.items())
    found.append(f"decisions: {', '.join(by) or 'none'}")
    if len(one.sent_late_N):
        late = np.percentile(one.sent_late_N, (50, 99)) / 1e6
        found.append(f"ticks sent after they were due, ms: p50 {late[0]:.2f}, p99 {late[1]:.2f}")
    return found
