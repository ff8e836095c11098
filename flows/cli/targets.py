"""`tickline reconcile`: bring every target level with the route. The table of the targets."""

import os
import time
from collections.abc import Iterable
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.options import PANELS, expanded, settings_from_environment
from infra.background import in_background
from infra.triton.targets import serving_settings
from model_code.errors import ConfigError, TicklineError
from model_code.repository.audit import account
from model_code.repository.fence import complete
from model_code.settings import Settings

if TYPE_CHECKING:
    from model_code.serving.levels import Level

app = typer.Typer()
out = Console()
LOADING_S = 5.0  # between two looks at the champion while something is loaded


@app.command(rich_help_panel=PANELS.promotion)
def reconcile(
    watch: Annotated[
        bool, typer.Option("--watch", help="Repeat until Ctrl-C; print what changes.")
    ] = False,
    every: Annotated[float, typer.Option(help="Seconds between two rounds.", min=0.1)] = 10.0,
    alive_file: Annotated[
        Path | None,
        typer.Option(
            help="With --watch: touch this file after each round, and during a long load, in which "
            "the champion of every target answered, for a probe.",
            show_default="nowhere",
            callback=expanded,
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who does it.", show_default="this account's name")
    ] = None,
) -> None:
    """Bring every Triton server (one, or the policy's targets) level with the route.

    Use it after a promotion that left targets behind, and after a restart of a
    server. It copies and loads what a target lacks, verifies it with golden
    requests, and unloads versions that are not routed any more. A target that is
    level is verified and left alone. It sets MLflow's alias champion back if
    somebody set it by hand. Exit status 1: a target is still behind.

    After [bold]tickline rollback --emergency[/] it also brings MLflow's aliases and
    tags, Prefect and the audit file level, and prints what it did (not with --watch).

    It waits for no promotion: beside a running one it is refused. With --watch it
    tries again in the next round, and takes the lock of promotions only if a
    target is behind.
    """
    settings, who = serving_settings(settings_from_environment()), by or account()
    from tasks.promotion.targets import reconcile_targets

    if not watch:
        found = reconcile_targets(settings, who)
        out.print(targets_table(found))
        from flows.runs.promotions import level_emergencies

        level_emergencies(settings, lambda line: out.print(escape(line)))
        _level_alias(settings)
        if not all(one.level for one in found):
            raise typer.Exit(1)
        return
    from tasks.promotion.targets import compare_targets

    seen = ""
    try:
        while True:
            found, changed = (), False
            try:
                found = compare_targets(settings)
                if not all(one.level for one in found):
                    # a load may take long: the champion answers meanwhile, or does not
                    loading = in_background(lambda: reconcile_targets(settings, who))
                    while not wait([loading], timeout=LOADING_S).done:
                        _touch(alive_file, compare_targets(settings))
                    found = loading.result()
                shown = repr([(one.target, one.problem) for one in found])
                text: Table | str = targets_table(found)
                changed = any(one.action for one in found)
            except TicklineError as error:  # the next round may succeed
                shown, text = str(error), escape(str(error))
            _touch(alive_file, found)
            if changed or shown != seen:
                out.print(text)
            seen = shown
            time.sleep(every)
    except KeyboardInterrupt:
        return


def _touch(alive_file: Path | None, found: "Iterable[Level]") -> None:
    """Touch the file if the champion of every target answered."""
    answers = [one.answers for one in found]
    if alive_file is not None and answers and all(answers):
        alive_file.touch()


def _level_alias(settings: Settings) -> None:
    """Set MLflow's alias back to what serves; the targets do not wait for MLflow."""
    from infra.servers import environment

    os.environ.update(environment(settings))  # before MLflow is imported
    from mlflow.exceptions import MlflowException

    from tasks.runs.serving_version import level_alias

    try:
        done = level_alias(settings)
    except (TicklineError, MlflowException) as error:
        why = str(error).splitlines()[0]
        out.print(f"[yellow]the alias champion in MLflow was not compared[/]: {escape(why)}")
        return
    if done:
        out.print(done)


def targets_table(found: "Iterable[Level]") -> Table:
    """What each target has and should have, what was done, and how it ended."""
    table = Table("target", "has", "wanted", "action", "result", box=box.SIMPLE_HEAD)
    for one in found:
        has = "no answer" if one.has is None else _versions(one.has)
        result = "[green]level" if one.level else f"[red]behind[/]: {escape(one.problem)}"
        table.add_row(one.target, has, _versions(one.wanted), one.action or "none", result)
    return table


def show_targets(settings: Settings) -> None:
    """Print how the targets compare with the route; nothing with a single server."""
    try:
        settings = serving_settings(settings)
    except ConfigError as error:
        out.print(f"[yellow]{escape(str(error))}")
        return
    if not settings.targets:
        return
    from tasks.promotion.targets import compare_targets

    found = compare_targets(settings)
    out.print(targets_table(found))
    if not all(one.level for one in found):
        out.print("[yellow]a target is behind[/]: tickline reconcile")


def show_emergency(settings: Settings) -> None:
    """Print an emergency rollback that is not complete or not known everywhere."""
    from model_code.repository.serving import ServingRepository

    found = ServingRepository(settings.serving_repository).fence.not_level()
    if not found:
        return
    newest = found[-1]
    what = f"emergency rollback to version {newest.version} ({newest.at[:16]} UTC, {newest.by})"
    if newest.state == "begun":
        out.print(f"[red]{escape(what)} was interrupted[/]: {complete(newest.version)}")
    else:
        out.print(f"[yellow]{escape(what)} is not in MLflow and Prefect yet[/]: tickline reconcile")


def say_behind(behind: dict[str, str]) -> None:
    """Print which targets a promotion or rollback left behind."""
    for name, why in sorted(behind.items()):
        out.print(f"[yellow]target {name} is behind[/]: {escape(why)}")
    if behind:
        out.print("bring it level: tickline reconcile")


def _versions(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions)) or "none"
