"""`tickline replay`: play recorded days through the live path and compare with the batch."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.live.streams import SPEED, Dates, Symbols
from flows.cli.options import PANELS, Data, market_uri, settings_from_environment
from model_code.errors import ConfigError
from model_code.settings import MAX_BATCH_SIZE, FeatureSpec

if TYPE_CHECKING:
    from model_code.live.earnings import Earned
    from model_code.live.replay import Played
    from model_code.market.schema import InstrumentDay
    from model_code.market.store import MarketStore
    from model_code.repository.manifest import Manifest

app = typer.Typer()
out = Console()
MEASURED = "measured"
Pace = Callable[[int], None]


@app.command(rich_help_panel=PANELS.serving)
def replay(
    data: Data = None,
    version: Annotated[
        int | None,
        typer.Option(
            help="Decide with this version.", show_default="the serving one, else the newest staged"
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            help="Decide with the version that this nightly staged (name or id).",
            show_default="none",
        ),
    ] = None,
    speed: Annotated[str, typer.Option(help=SPEED)] = "max",
    symbols: Symbols = None,
    date: Dates = None,
    latency: Annotated[
        str | None,
        typer.Option(
            help="Show what the decisions could earn when filled this many ms later; "
            "[bold]measured[/]: after this machine's own latency.",
            show_default="not shown",
        ),
    ] = None,
    cost_bps: Annotated[
        float, typer.Option(help="Cost of a trade besides the spread, in basis points.", min=0.0)
    ] = 0.0,
) -> None:
    """Play recorded days through the live path; compare with the batch pipeline.

    Every quote and trade becomes a message and takes the way of a live one. The
    version's engine answers in this process; no server is needed. Each decision
    must equal the batch pipeline's on the same ticks. Otherwise the command
    fails and names the first row that differs (docs/live.md).
    """
    from flows.runs.replay_model import find_version, load_model
    from model_code.live.earnings import earned
    from model_code.live.replay import play_store
    from model_code.market.store import open_market

    delay_ms, pacer = _delay(latency), pacer_of(speed)
    settings = settings_from_environment()
    folder, manifest = find_version(settings, version, run)
    store = open_market(market_uri(data, settings) or "simulated:")
    model = load_model(folder, manifest, cost_bps)
    catalog = days_of(store, manifest, symbols, date)
    begun = time.perf_counter()
    played = play_store(
        store,
        catalog,
        model,
        batch=1 if latency == MEASURED else MAX_BATCH_SIZE,
        pacer=pacer,
        clock=time.perf_counter_ns,
    )
    seconds = time.perf_counter() - begun
    if store.simulated:
        out.print("SIMULATED MARKET: the ticks are simulated, the figures describe no real market")
    out.print(
        f"version {manifest.version}, features {manifest.seen.feature_set}, "
        f"yes from {manifest.threshold:.4g}"
    )
    out.print(_decisions(played))
    for name, ms in _delays(latency, delay_ms, played).items():
        found = [earned(one, model.spec, ms) for one in played.outcomes]
        out.print(_earnings(f"Filled {ms:.3g} ms later{name}", model.spec, found))
    for rule, count in played.left_out.items():
        out.print(f"not played, validation sets it aside with the day in view: {rule} {count:,}")
    for reason, count in played.path.ledger.reasons.items():
        out.print(f"no decision: {reason} {count:,}")
    out.print(f"{played.tally.compared:,} decisions, all equal to the batch pipeline's")
    out.print(str(played.path.ledger), soft_wrap=True)
    out.print(f"{played.path.ledger.taken / seconds:,.0f} ticks/s, read and compared too")


def _delay(latency: str | None) -> float:
    """The latency in ms; 0 if it is to be measured or not asked for."""
    if latency is None or latency == MEASURED:
        return 0.0
    return _number(latency, "--latency", f"a number of ms, or {MEASURED}", least=0.0)


def pacer_of(speed: str) -> Callable[[], Pace | None]:
    """What holds the messages of each date back to a multiple of real time."""
    if speed == "max":
        return lambda: None
    multiple = _number(speed, "--speed", "max, or a multiple of real time above 0", least=1e-9)

    def start() -> Pace:
        begun = time.perf_counter()
        first: list[int] = []

        def pace(stamp_ns: int) -> None:
            if not first:
                first.append(stamp_ns)
            wait = (stamp_ns - first[0]) / 1e9 / multiple - (time.perf_counter() - begun)
            if wait > 0.001:  # a shorter sleep lasts longer than asked
                time.sleep(wait)

        return pace

    return start


def _number(text: str, option: str, expected: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise ConfigError(f"{option} is {text!r}, expected {expected}", remedy=f"{option} 10")
    return value


def days_of(
    store: "MarketStore",
    manifest: "Manifest",
    symbols: Sequence[str] | None,
    dates: Sequence[str] | None,
) -> "list[InstrumentDay]":
    """The days to play: of the chosen instruments and their leaders, on the chosen dates.

    Raises:
        ConfigError: the store has no such instrument or date.
    """
    catalog = store.catalog()
    known = {day.symbol for day in catalog} | {str(day.date) for day in catalog}
    missing = [name for name in (*(symbols or ()), *(dates or ())) if name not in known]
    if missing:
        raise ConfigError(
            f"not in the store: {', '.join(missing)}",
            where=store.uri,
            remedy="list instruments and dates: tickline data describe",
        )
    wanted = set(symbols or ()) or {day.symbol for day in catalog}
    wanted |= {name for symbol in wanted for name in manifest.seen.leaders.get(symbol, ())}
    return [
        day for day in catalog if day.symbol in wanted and (not dates or str(day.date) in dates)
    ]


def _delays(latency: str | None, delay_ms: float, played: "Played") -> dict[str, float]:
    """Latencies in ms to fill after, each with what to say of it."""
    if latency is None or (latency == MEASURED and not played.tally.latencies_ns):
        return {}
    if latency != MEASURED:
        return {"": delay_ms}
    return {
        f" (measured p{level})": float(np.percentile(played.tally.latencies_ns, level)) / 1e6
        for level in (50, 99)
    }


def _decisions(played: "Played") -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("instrument", overflow="fold")
    for heading in ("decisions", "yes", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    counts, positive = played.tally.decisions, played.tally.positive
    for symbol in sorted(counts):
        _add_counts(table, escape(symbol), counts[symbol], positive[symbol])
    table.add_section()
    _add_counts(table, "all", sum(counts.values()), sum(positive.values()))
    return table


def _add_counts(table: Table, name: str, decisions: int, yes: int) -> None:
    share = f"{yes / decisions:.1%}" if decisions else "–"
    table.add_row(name, f"{decisions:,}", f"{yes:,}", share)


def _earnings(title: str, spec: FeatureSpec, dates: "Sequence[Mapping[str, Earned]]") -> Table:
    table = Table(
        title=title,
        caption="Best case in bps of the mid, direction and exit in hindsight: an upper bound. "
        f"Label {spec.chosen_label}, {spec.horizon_ms:g} ms, cost {spec.cost_bps:g} bps.",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("instrument", overflow="fold")
    for heading in ("yes", "bps each", "bps in total", "every window, bps each"):
        table.add_column(heading, justify="right")
    by_symbol: dict[str, Earned] = {}
    for found in dates:
        for symbol, one in found.items():
            by_symbol[symbol] = by_symbol[symbol] + one if symbol in by_symbol else one
    for symbol, one in sorted(by_symbol.items()):
        _add_earned(table, escape(symbol), one)
    table.add_section()
    first, *rest = by_symbol.values()
    _add_earned(table, "all", sum(rest, first))
    return table


def _add_earned(table: Table, name: str, one: "Earned") -> None:
    each = f"{one.chosen_bps / one.chosen:.3f}" if one.chosen else "–"
    every = f"{one.windows_bps / one.windows:.3f}" if one.windows else "–"
    table.add_row(name, f"{one.chosen:,}", each, f"{one.chosen_bps:,.1f}", every)
