"""`tickline gate`: judge a measured run again, with other goals, without inference."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.options import settings_from_environment

app = typer.Typer()
out = Console()


@app.command()
def gate(
    replay: Annotated[
        str,
        typer.Option(
            help="What was measured: a benchmark's folder, or an MLflow run by name or id "
            "(of a bench run its last measurement)."
        ),
    ],
    goals: Annotated[
        Path | None, typer.Option(help="YAML of goals to try instead of the shipped ones.")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", "-e", help="Print only these engines' goals; repeat for several."),
    ] = None,
    pin: Annotated[
        str | None, typer.Option(help="Choose this engine or none, as benchmark.pin does.")
    ] = None,
) -> None:
    """Judge a measured run again, with other goals: no model is loaded and nothing is staged.

    Every latency and every answer of a benchmark is stored, so goals can be tried in seconds.

    Example. Would the last night have passed if the desk asked for 5 ms?

        tickline gate --replay amber-falcon > before.txt
        cp model_code/benchmark/goals.yaml mine.yaml      # change maximum: 10.0 to 5.0
        tickline gate --replay amber-falcon --goals mine.yaml

    "interval" is of what the limit bounds: the value, or how much better it is than FP32 or the
    champion. "margin" is the distance of its worse bound to the limit; negative is missed.
    """
    from flows.gate_replay import replay as judge_again

    out.print(
        judge_again(replay, goals, settings_from_environment(), engines=engine or (), pin=pin)
    )
