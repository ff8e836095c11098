"""`tickline exceptions`: the exception with which the serving version was approved."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from flows.cli.options import Key, Yes, settings_from_environment
from model_code.repository import signatures
from model_code.settings import Settings

if TYPE_CHECKING:
    from tasks.promotion.exceptions import Sign

app = typer.Typer(help="The exception of the serving version: show, renew or close it.")
out = Console()
Version = Annotated[int, typer.Argument(help="The serving version.")]
Reviewer = Annotated[str, typer.Option(help="Your name, as in the policy.")]
Reason = Annotated[str, typer.Option(help="Why; written to the audit file.")]


@app.callback(invoke_without_command=True)
def show(context: typer.Context) -> None:
    """Show the exception of the serving version: why, whose, until when.

    Use it when an alert names one. A lapsed exception blocks the next promotion
    until a reviewer renews or closes it:

        tickline exceptions renew 7 --expires 2027-01-31 --reviewer ada --reason TEXT
        tickline exceptions close 7 --reviewer ada --reason TEXT
    """
    if context.invoked_subcommand is None and not say_exception(settings_from_environment()):
        out.print("the serving version was approved without an exception")


@app.command()
def renew(
    version: Version,
    expires: Annotated[str, typer.Option(help="The new last day, YYYY-MM-DD (UTC).")],
    reviewer: Reviewer,
    reason: Reason,
    owner: Annotated[
        str, typer.Option(help="Who answers for it from now on.", show_default="the same owner")
    ] = "",
    key: Key = None,
    yes: Yes = False,
) -> None:
    """Let the exception of the serving version hold longer, or change its owner.

    Use it if its cause is still there and the model may serve all the same. The
    policy limits how long an exception may hold (exception_days).
    """
    from tasks.promotion import exceptions

    renewed = exceptions.renew(
        settings_from_environment(),
        version,
        owner=owner,
        expires=expires,
        reviewer=reviewer,
        reason=reason,
        sign=_signing(key, yes),
    )
    out.print(f"[bold green]renewed[/]: {escape(renewed.line(exceptions.today()))}")


@app.command()
def close(
    version: Version, reviewer: Reviewer, reason: Reason, key: Key = None, yes: Yes = False
) -> None:
    """Close the exception of the serving version: its cause no longer exists.

    Use it if the reason no longer holds, for example after a week of live figures.
    """
    from tasks.promotion import exceptions

    closed = exceptions.close(
        settings_from_environment(),
        version,
        reviewer=reviewer,
        reason=reason,
        sign=_signing(key, yes),
    )
    out.print(f"[bold green]closed[/]: {escape('; '.join(closed.reasons))}, version {version}")


def _signing(key: Path | None, yes: bool) -> "Sign | None":
    """What signs with this key, after showing the text; None without a key."""
    if key is None:
        return None
    signer = key

    def sign(text: str) -> str:
        out.print(Panel(escape(text.rstrip()), title="what is signed"))
        if not yes and sys.stdin.isatty():
            typer.confirm("Sign it?", abort=True)
        return signatures.sign(text, signer)

    return sign


def say_exception(settings: Settings) -> bool:
    """Print the exception of the serving version; return whether it has one."""
    from tasks.promotion import exceptions

    found, today = exceptions.serving(settings), exceptions.today()
    if found is None:
        return False
    colour = "red" if found.lapsed(today) else "yellow" if found.soon(today) else "cyan"
    out.print(f"[{colour}]exception[/]: {escape(found.line(today))}")
    return True
