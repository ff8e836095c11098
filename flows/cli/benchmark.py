"""`tickline bench`, `engines`, `gate`: measure engines, list them, judge a stored benchmark."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.options import (
    PANELS,
    Data,
    Engines,
    FromRun,
    Network,
    Set,
    SpecFile,
    default_of,
    expanded,
    market_uri,
    settings_from_environment,
)
from flows.cli.start import night_spec
from model_code.settings import ENGINE_NAMES, TRITON_ROW, NightlySpec

app = typer.Typer()
out = Console()


@app.command(rich_help_panel=PANELS.benchmark)
def bench(
    data: Data = None,
    engine: Engines = None,
    requests: Annotated[
        int | None,
        typer.Option(
            help="Single requests per engine; at least 1000 for a p99.9.",
            show_default=default_of(NightlySpec, "benchmark.requests"),
        ),
    ] = None,
    open_loop_hz: Annotated[
        float | None,
        typer.Option(
            help="Arrival rate of the open loop, in requests per second.",
            show_default=default_of(NightlySpec, "benchmark.open_loop_hz"),
        ),
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, help="Measure this many times; report how well they agree.")
    ] = 1,
    network: Network = None,
    spec: SpecFile = None,
    from_run: FromRun = None,
    set_: Set = None,
) -> None:
    """Measure all engines of this machine side by side: latency, throughput, answers.

    Use it to compare engines without a nightly run. It measures the network
    that [bold]tickline nightly[/] trains on the same data: if that has run, only the
    measurement is new. Tables and plots go to MLflow's experiment [bold]bench[/].

    To judge the measurement by other goals: [bold]tickline gate[/].
    """
    settings = settings_from_environment()
    changes: dict[str, Any] = {
        "market": market_uri(data, settings, from_run),
        "benchmark": {
            "engines": engine,
            "requests": requests,
            "open_loop_hz": open_loop_hz,
        },
    }
    wanted = night_spec(
        settings, path=spec, from_run=from_run, network=network, changes=changes, assignments=set_
    )
    if "engines" not in wanted.benchmark.model_fields_set:  # set neither here nor in the file
        every = wanted.benchmark.model_copy(update={"engines": ENGINE_NAMES})
        wanted = wanted.model_copy(update={"benchmark": every})
    from flows.runs.local import run_bench

    found = run_bench(wanted, settings, repeat)
    from flows.cli.tables import (
        bench_tables,  # imports Prefect: after its environment is set
    )

    for part in bench_tables(found):
        out.print(part, soft_wrap=isinstance(part, str))


@app.command(rich_help_panel=PANELS.benchmark)
def engines() -> None:
    """List the inference engines, and whether this machine can run each.

    Use it to see why an engine is missing from a benchmark.
    """
    from infra.triton.benchmark_row import NOT_INSTALLED
    from infra.triton.install import installed
    from model_code.engines.registry import ENGINES, available

    table = Table("engine", "precision", "device", "on this machine", title="Engines")
    for name, reason in available().items():
        engine = ENGINES[name]
        state = "[green]available[/]" if reason is None else f"[yellow]unavailable:[/] {reason}"
        table.add_row(name, engine.precision, engine.device, state)
    served = installed(settings_from_environment())
    state = "[green]available[/]" if served else f"[yellow]unavailable:[/] {NOT_INSTALLED}"
    table.add_row(TRITON_ROW, "as served", "cpu", state)
    out.print(table)


@app.command(rich_help_panel=PANELS.benchmark)
def gate(
    replay: Annotated[
        str,
        typer.Option(
            help="A benchmark's folder, or the name or id of an MLflow run (its last measurement)."
        ),
    ],
    goals: Annotated[
        Path | None,
        typer.Option(help="YAML of goals.", show_default="the shipped goals", callback=expanded),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            "-e",
            help="Print only this engine's goals; repeat for several.",
            show_default="all",
        ),
    ] = None,
    pin: Annotated[
        str | None,
        typer.Option(
            help="Choose this engine or none, like benchmark.pin.",
            show_default="the fastest that passes",
        ),
    ] = None,
) -> None:
    """Judge a stored benchmark again, with other goals. Loads no model and stages nothing.

    Use it to try goals in seconds: a benchmark stores all latencies and answers.

    Example: would the last nightly have passed a limit of 5 ms?

        tickline gate --replay amber-falcon > before.txt
        cp model_code/benchmark/goals.yaml mine.yaml    # set maximum: 5.0
        tickline gate --replay amber-falcon --goals mine.yaml

    "interval" is the confidence interval of the value, or of its improvement
    over FP32 or the champion. "margin" is the distance from the limit to the
    interval's worse bound; a negative margin misses the goal.
    """
    from flows.runs.replay_gate import replay as judge_again

    out.print(
        judge_again(replay, goals, settings_from_environment(), engines=engine or (), pin=pin)
    )
