"""`tickline walkforward`: judge the night's models on dates they have not seen."""

from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from flows.cli.options import (
    PANELS,
    Data,
    FromRun,
    Network,
    OnCluster,
    Set,
    SpecFile,
    default_of,
    market_uri,
    problems,
    settings_from_environment,
)
from flows.cli.start import night_spec
from model_code.benchmark.reports.walkforward_report import Walk, last_line, sheets
from model_code.errors import ConfigError
from model_code.settings.walkforward import WalkforwardSpec

app = typer.Typer()
out = Console()


@app.command(rich_help_panel=PANELS.nights)
def walkforward(
    data: Data = None,
    network: Network = None,
    spec: SpecFile = None,
    from_run: FromRun = None,
    set_: Set = None,
    trials: Annotated[
        int,
        typer.Option(
            min=1,
            help="Settings that gradient boosting tries for each date.",
            show_default=default_of(WalkforwardSpec, "tuning_trials"),
        ),
    ] = WalkforwardSpec.model_fields["tuning_trials"].default,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="Trainings of the model on the newest date, each with another seed.",
            show_default=default_of(WalkforwardSpec, "seeds"),
        ),
    ] = WalkforwardSpec.model_fields["seeds"].default,
    first_test: Annotated[
        float,
        typer.Option(
            help="Test dates begin at this share of the dates, 0 to 1.",
            show_default=default_of(WalkforwardSpec, "first_test"),
        ),
    ] = WalkforwardSpec.model_fields["first_test"].default,
    delay_ms: Annotated[
        float | None,
        typer.Option(
            help="From decision to trade, in the profit bound.",
            show_default="measured",
        ),
    ] = None,
    no_solo: Annotated[
        bool, typer.Option("--no-solo", help="Leave out each instrument's own features alone.")
    ] = False,
    cluster: OnCluster = None,
) -> None:
    """Judge the night's models on dates they have not seen, against tuned boosting.

    Use it before you believe a model. Each test date is predicted by models
    trained on the dates before it, and all its windows count. Intervals come
    from resampled dates and blocks of time; both sides see the same draws.

        tickline walkforward --data PATH --network blend --trials 8

    Run the same command again after an interruption: finished fits are kept.
    The last line compares the model with boosting that was tuned as hard on the
    same inputs. docs/evaluation.md explains every column.
    """
    settings = settings_from_environment(cluster=cluster)
    night = night_spec(
        settings,
        path=spec,
        from_run=from_run,
        network=network,
        changes={"market": market_uri(data, settings, from_run)},
        assignments=set_,
    )
    try:
        wanted = WalkforwardSpec(
            night=night,
            tuning_trials=trials,
            seeds=seeds,
            first_test=first_test,
            delay_ms=delay_ms,
            also_solo=not no_solo,
        )
    except ValidationError as error:
        raise ConfigError(
            "the walk forward is wrong: " + problems(error),
            where="command line",
            remedy="tickline walkforward --help",
        ) from error
    from flows.runs.local import run_walkforward

    print_walk(run_walkforward(wanted, settings))


def print_walk(walk: Walk) -> None:
    """Print the tables and, as the last line, the comparison with boosting."""
    from flows.cli.tables import sheet_table  # imports Prefect: after its environment is set

    for note in walk.skipped:
        out.print(f"[yellow]note[/] {note}")
    for sheet in sheets(walk):
        out.print(sheet_table(sheet))
    if walk.simulated:
        out.print("SIMULATED MARKET: the figures describe no real market")
    out.print("tables and pictures: [bold]tickline ui[/], experiment walkforward")
    out.print(last_line(walk), soft_wrap=True, highlight=False)
