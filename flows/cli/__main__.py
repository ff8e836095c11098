"""The `tickline` command: assembles the command groups and prints an error as one message."""

import datetime as dt
import logging
import os
import sys
import traceback
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from flows.cli import (
    benchmark,
    cleanup,
    data,
    exceptions,
    monitoring,
    nightly,
    oncall,
    policy,
    predict,
    promotion,
    stack,
    targets,
    triton,
    tune,
    tune_serving,
    walkforward,
)
from flows.cli.live import direct, feed, feedback, load, monitor, replay, serve
from flows.cli.options import PANELS
from flows.runs.local import AwayError, StoppedError
from infra.proxies import without_loopback
from infra.redact import redact, redact_logs
from model_code import __version__
from model_code.errors import StorageError, TicklineError
from model_code.settings import Settings

app = typer.Typer(
    name="tickline",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="""[bold]Tickline[/]: nightly retraining for tick-level prediction, from ticks to a staged,
    benchmarked, judged model.

    First run, no data needed:  [bold]tickline nightly[/]
    On real ticks:              [bold]tickline nightly --data PATH[/]
    See the results:            [bold]tickline ui[/]
    After a failure:            [bold]tickline rerun --last-failed[/]

    Everything is written under TICKLINE_HOME (default ~/.tickline).""",
)
# the order of the groups in --help
app.add_typer(nightly.app)
app.add_typer(tune.app)
app.add_typer(walkforward.app)
app.add_typer(benchmark.app)
app.add_typer(promotion.app)
app.add_typer(policy.app, name="policy", rich_help_panel=PANELS.promotion)
app.add_typer(exceptions.app, name="exceptions", rich_help_panel=PANELS.promotion)
app.add_typer(targets.app)
app.add_typer(predict.app)
app.add_typer(replay.app)
app.add_typer(serve.app)
app.add_typer(direct.app)
app.add_typer(feed.app)
app.add_typer(load.app)
app.add_typer(monitor.app)
app.add_typer(tune_serving.app)
app.add_typer(triton.app, name="triton", rich_help_panel=PANELS.serving)
app.add_typer(oncall.app)
app.add_typer(stack.app)
app.add_typer(monitoring.app)
app.add_typer(feedback.app)
app.add_typer(cleanup.app)
app.add_typer(data.app, name="data", rich_help_panel=PANELS.data)

INTERRUPTED = 130  # the shell's status of a command that Ctrl-C ended
out = Console()
err = Console(stderr=True)


def main() -> None:
    """Run the command. An error prints a message and exits with 1; a traceback goes to a log."""
    os.environ.update(without_loopback(os.environ))  # before a library reads it
    logging.raiseExceptions = False  # a log that cannot be sent or written is not a second failure
    redact_logs()
    try:
        app()
    except StoppedError as error:
        _stop(str(error), status=INTERRUPTED)
    except AwayError as error:
        _show(str(error))
        sys.stdout.flush()
        os._exit(1)  # at exit Prefect would wait for minutes for each event it could not send
    except TicklineError as error:
        _stop(str(error))
    except Exception as error:
        _stop(str(_unexpected(error)))


def _unexpected(error: Exception) -> TicklineError:
    """The error with its traceback's log; if no log can be written, what keeps the folder shut."""
    home = Settings().resolved().home
    log = home / "logs" / f"error-{dt.datetime.now():%Y%m%d-%H%M%S}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(redact("".join(traceback.format_exception(error))))
    except OSError as refused:
        return StorageError(
            f"cannot write to the home folder: {refused.strerror}",
            where=f"{home} ({type(error).__name__}: {error})",
            remedy="make it writable for this user (ls -ld, mount) and free space (df -h), "
            "or name another folder: TICKLINE_HOME=FOLDER",
        )
    return TicklineError(
        f"unexpected {type(error).__name__}: {error}",
        where=str(log),
        remedy="read the traceback there; if a run stopped, what to do next: tickline why",
    )


def _stop(message: str, *, status: int = 1) -> None:
    _show(message)
    sys.exit(status)


def _show(message: str) -> None:
    err.print(Panel(escape(redact(message)), title="[bold red]tickline failed", border_style="red"))


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


if __name__ == "__main__":
    main()
