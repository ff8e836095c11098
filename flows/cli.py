"""The `tickline` command."""

import datetime as dt
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from flows import (
    cli_backfill,
    cli_gate,
    cli_gc,
    cli_oncall,
    cli_predict,
    cli_promote,
    cli_sight,
    cli_stack,
    cli_triton,
)
from flows.options import Data, SpecFile, market_uri, nightly_spec, settings_from_environment
from model_code import __version__
from model_code.errors import ConfigError, TicklineError
from model_code.settings import ENGINE_NAMES, Settings

app = typer.Typer(
    name="tickline",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="""[bold]Tickline[/]: nightly retraining for tick-level prediction, from ticks to a staged,
    benchmarked, judged model.

    First run, no data needed:  [bold]tickline nightly[/]
    On real ticks:              [bold]tickline nightly --data PATH[/]
    Look at the results:        [bold]tickline ui[/]
    After a failure:            [bold]tickline rerun --last-failed[/]

    Everything is written under TICKLINE_HOME (default ~/.tickline).""",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at market data, or fetch it.")
app.add_typer(data_app, name="data")
app.add_typer(cli_gate.app)
app.add_typer(cli_predict.app)
app.add_typer(cli_promote.app)
app.add_typer(cli_triton.app, name="triton")
app.add_typer(cli_sight.app)
app.add_typer(cli_gc.app)
app.add_typer(cli_stack.app)
app.add_typer(cli_backfill.app)
app.add_typer(cli_oncall.app)

out = Console()
err = Console(stderr=True)


def main() -> None:
    """Run the command; an error is a message and exit status 1, its traceback goes to a log."""
    try:
        app()
    except TicklineError as error:
        _stop(str(error))
    except Exception as error:
        log = Settings().resolved().home / "logs" / f"error-{dt.datetime.now():%Y%m%d-%H%M%S}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc())
        _stop(
            f"unexpected {type(error).__name__}: {error}\n  where: {log}\n"
            "  do:    read the traceback there; then go on with tickline rerun --last-failed"
        )


def _stop(message: str) -> None:
    err.print(Panel(escape(message), title="[bold red]tickline stopped", border_style="red"))
    sys.exit(1)


def _print_version(asked: bool) -> None:
    if asked:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


@app.command()
def nightly(
    data: Data = None,
    instrument: Annotated[
        list[str] | None,
        typer.Option("--instrument", "-i", help="Only this instrument; repeat for several."),
    ] = None,
    test_date: Annotated[
        str | None,
        typer.Option(help="Judge on this date (YYYY-MM-DD) instead of the store's newest."),
    ] = None,
    train_days: Annotated[
        int | None, typer.Option(help="Train on at most this many dates before the test date.")
    ] = None,
    horizon_ms: Annotated[
        float | None, typer.Option(help="Label: an opportunity within this many milliseconds.")
    ] = None,
    cost_bps: Annotated[
        float | None, typer.Option(help="Label: round-trip cost in basis points.")
    ] = None,
    max_fault_fraction: Annotated[
        float | None,
        typer.Option(help="Fail a day with more faulty rows than this fraction; 0.01 is 1%."),
    ] = None,
    train_windows: Annotated[
        int | None, typer.Option(help="Training windows to draw; more is slower and better.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training windows.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows per optimiser step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto, fp32, bf16 or fp16; auto takes what the processor is fast at."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and dropout.")] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", "-e", help=f"Only these engines: {', '.join(ENGINE_NAMES)}."),
    ] = None,
    goals: Annotated[
        Path | None, typer.Option(help="YAML of the gate's goals instead of the shipped one.")
    ] = None,
    pin: Annotated[
        str | None, typer.Option(help="Stage this engine instead of the fastest that passes.")
    ] = None,
    spec: SpecFile = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Compute every stage again, cached or not.")
    ] = False,
) -> None:
    """Retrain: validate ticks, build features, train, export, build engines, measure, judge, stage.

    Trains on the dates before the newest one and is judged on the newest. Nothing goes live: the
    candidate is registered in MLflow and laid into a staging repository.

    Stages whose inputs did not change come back [bold]Cached[/]. A run that died is continued with
    [bold]tickline rerun[/]. Without data it runs on a simulated market, and says so everywhere.
    """
    settings = settings_from_environment()
    changes: dict[str, Any] = {
        "market": market_uri(data, settings),
        "instruments": instrument,
        "test_date": test_date,
        "train_days": train_days,
        "goals": str(goals.resolve()) if goals else None,
        "validation": {"max_fault_fraction": max_fault_fraction},
        "features": {"horizon_ms": horizon_ms, "cost_bps": cost_bps},
        "split": {"train_windows": train_windows},
        "training": {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "precision": precision,
            "seed": seed,
        },
        "benchmark": {"engines": engine, "pin": pin},
    }
    from flows.local import run_nightly

    outcome = run_nightly(nightly_spec(spec, changes), settings, refresh=refresh)
    from flows.summary import render  # imports Prefect, which must find its environment set

    out.print(render(outcome))


@app.command()
def bench(
    data: Data = None,
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", "-e", help=f"Only these engines: {', '.join(ENGINE_NAMES)}."),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="Single requests an engine; at least 1000 for a p99.9.")
    ] = None,
    open_loop_hz: Annotated[
        float | None, typer.Option(help="Arrival rate of the open loop, requests a second.")
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, help="Measure so many times and say how well they agree.")
    ] = 1,
    spec: SpecFile = None,
) -> None:
    """Measure every engine this machine can run side by side: latency, throughput, answers.

    The network is the one [bold]tickline nightly[/] trains on the same data; if it ran, only the
    measurement is new. Tables and plots go to MLflow's experiment [bold]bench[/].

    Try other goals on the same measurement, without running anything: [bold]tickline gate[/].
    """
    settings = settings_from_environment()
    changes: dict[str, Any] = {
        "market": market_uri(data, settings),
        "benchmark": {
            "engines": engine,
            "requests": requests,
            "open_loop_hz": open_loop_hz,
        },
    }
    asked = nightly_spec(spec, changes)
    if "engines" not in asked.benchmark.model_fields_set:  # neither named here nor in the file
        every = asked.benchmark.model_copy(update={"engines": ENGINE_NAMES})
        asked = asked.model_copy(update={"benchmark": every})
    from flows.local import run_bench

    found = run_bench(asked, settings, repeat)
    from flows.bench_tables import render  # imports Prefect, which must find its environment set

    for part in render(found):
        out.print(part, soft_wrap=isinstance(part, str))


@app.command()
def engines() -> None:
    """List the inference engines: which this machine can run, and why not the others."""
    from infra.triton.install import installed
    from model_code.engines.registry import ENGINES, available
    from tasks.served import NOT_INSTALLED, TRITON_ROW

    table = Table("engine", "precision", "device", "on this machine", title="Engines")
    for name, reason in available().items():
        engine = ENGINES[name]
        state = "[green]available[/]" if reason is None else f"[yellow]unavailable:[/] {reason}"
        table.add_row(name, engine.precision, engine.device, state)
    served = installed(settings_from_environment())
    state = "[green]available[/]" if served else f"[yellow]unavailable:[/] {NOT_INSTALLED}"
    table.add_row(TRITON_ROW, "as served", "cpu", state)
    out.print(table)


@app.command()
def ui(
    prefect_port: Annotated[int, typer.Option(help="Port of Prefect's page.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's page.")] = 5000,
) -> None:
    """Open Prefect's and MLflow's pages on this machine (loopback only) until Ctrl-C."""
    from infra import stack_state
    from infra.ui import serve

    settings = settings_from_environment()
    stack = stack_state.read(settings)
    if stack is not None:
        for found in stack.services:
            out.print(f"{found.name:<8} {found.address}  ({found.status})")
        return
    serve(
        settings,
        prefect_port=prefect_port,
        mlflow_port=mlflow_port,
        say=out.print,
    )


@app.command()
def worker(
    pool: Annotated[str, typer.Option(help="Work pool to take runs from.")] = "local",
    once: Annotated[bool, typer.Option("--once", help="Run what is scheduled, then stop.")] = False,
) -> None:
    """Run deployed flows on this machine: a Prefect process worker in Tickline's environment."""
    from infra.worker import work

    work(settings_from_environment(), pool=pool, once=once)


@data_app.command("describe")
def describe(
    data: Data = None,
    picture: Annotated[Path, typer.Option(help="Where to draw the picture (PNG).")] = Path(
        "market.png"
    ),
) -> None:
    """Print instruments, dates, rows, gaps and quality of a market store, and draw a picture."""
    from flows.describe import describe_market

    out.print(
        describe_market(market_uri(data, settings_from_environment()) or "simulated:", picture)
    )


@data_app.command("download")
def download(
    symbol: Annotated[str, typer.Argument(help="As Binance writes it, e.g. BTCUSDT.")],
    dates: Annotated[list[str], typer.Argument(help="Dates, YYYY-MM-DD; at least two to train.")],
    folder: Annotated[Path, typer.Option(help="Where the archives go.")] = Path("archives"),
    base_url: Annotated[
        str | None, typer.Option(help="Folder of the archives; default: USD-margined futures.")
    ] = None,
) -> None:
    """Fetch Binance's public daily archives of best quotes and trades, checksums proved.

    Goes on where a broken download stopped. Then: tickline nightly --data FOLDER
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


if __name__ == "__main__":
    main()
