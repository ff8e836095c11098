"""`tickline tune`: search for better values of a few keys."""

from pathlib import Path
from statistics import pstdev
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table

from flows.cli.options import (
    PANELS,
    Data,
    FromRun,
    Network,
    OnCluster,
    Set,
    SpecFile,
    default_of,
    expanded,
    market_uri,
    settings_from_environment,
)
from flows.cli.start import night_spec
from model_code.errors import ConfigError
from model_code.settings.changes import from_yaml
from model_code.settings.tuning import EXAMPLES, TuneSpec, require_searchable, search_space

if TYPE_CHECKING:
    from flows.tune import Tuned

app = typer.Typer()
out = Console()


@app.command(rich_help_panel=PANELS.nights)
def tune(
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            "-s",
            help="A range, training.epochs=1..6, or a choice, network.hidden=64,128; repeat "
            "for several. A range may end with :log.",
            show_default="those of the file",
        ),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of more of them; one given here overrides the file's.",
            show_default="none",
            callback=expanded,
        ),
    ] = None,
    trials: Annotated[
        int,
        typer.Option(
            min=1,
            help="Trials of the whole study, earlier ones included.",
            show_default=default_of(TuneSpec, "trials"),
        ),
    ] = TuneSpec.model_fields["trials"].default,
    folds: Annotated[
        int,
        typer.Option(
            min=2,
            help="Blocks of the training days; each is validated once per trial.",
            show_default=default_of(TuneSpec, "folds"),
        ),
    ] = TuneSpec.model_fields["folds"].default,
    study: Annotated[
        str,
        typer.Option(help="Name to resume by.", show_default="made of the search and the ticks"),
    ] = "",
    data: Data = None,
    network: Network = None,
    spec: SpecFile = None,
    from_run: FromRun = None,
    set_: Set = None,
    cluster: OnCluster = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trials at a time on the cluster.",
            show_default="its workers; 1 without a cluster",
        ),
    ] = None,
) -> None:
    """Search for better network and training values, on the training days alone.

    Use it before you change the night's specification. A trial trains the
    network once per fold and scores the mean AUC on blocks of time that its
    training does not touch. The test date stays unseen. Bad trials stop early.

        tickline tune --network mlp --trials 30
          -s training.learning_rate=1e-4..3e-3:log -s network.hidden=64,128,256

    Run the same command again to continue after an interruption, or with more
    trials. At the end: the best trials, and a file for [bold]tickline nightly --spec[/].
    """
    settings = settings_from_environment(cluster=cluster)
    wanted = night_spec(
        settings,
        path=spec,
        from_run=from_run,
        network=network,
        changes={"market": market_uri(data, settings, from_run)},
        assignments=set_,
    )
    asked = TuneSpec(
        search=search_space(_written(space, search or [])), trials=trials, folds=folds, study=study
    )
    require_searchable(wanted, asked)
    from flows.runs.local import run_tune

    out.print(tuned_tables(run_tune(wanted, asked, settings, parallel=parallel)))


def _written(space: Path | None, search: list[str]) -> dict[str, Any]:
    """Dimensions as written: those of the file, then those of the command line."""
    written: dict[str, Any] = {}
    if space is not None:
        try:
            document = from_yaml(space.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read the space: {error}", where=str(space)) from error
        if not isinstance(document, dict):
            raise ConfigError(
                "a search space must be a mapping of key to range or choice",
                where=str(space),
                remedy=f"one line per key, {EXAMPLES}".replace("=", ": "),
            )
        written |= document
    for text in search:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(
                f"not a key and its values: {text!r}", where="--search", remedy=EXAMPLES
            )
        written[name.strip()] = value
    if not written:
        raise ConfigError(
            "nothing to search", where="--search, --space", remedy=f"name a key, {EXAMPLES}"
        )
    return written


def tuned_tables(tuned: "Tuned") -> RenderableType:
    """Lay out the best trials and what to do next, in 80 columns."""
    table = Table(
        title=f"Best trials of {tuned.study}" + (" (SIMULATED)" if tuned.simulated else ""),
        caption="AUC: mean over the folds; spread: standard deviation between them",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("trial", "AUC", "spread"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("values", overflow="fold")
    for row in tuned.best:
        values = ", ".join(
            f"{name.rpartition('.')[2]} {f'{value:.4g}' if isinstance(value, float) else value}"
            for name, value in row.params.items()
        )
        mark = " [dim](as given)[/]" if row.number == tuned.given else ""
        table.add_row(str(row.number), f"{row.auc:.4f}", f"{pstdev(row.folds):.4f}", values + mark)
    counts = ", ".join(f"{count} {state.lower()}" for state, count in tuned.states.items())
    return Group(
        table,
        f"{counts}; plots: [bold]tickline ui[/], experiment tune",
        f"next: [bold]tickline nightly --spec {tuned.spec_path}[/]",
    )
