"""`tickline monitor`: a running live service in the terminal."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import PANELS, settings_from_environment

app = typer.Typer()
out = Console()


@app.command(rich_help_panel=PANELS.serving)
def monitor(
    url: Annotated[str, typer.Option(help="Page of the service.")] = "http://127.0.0.1:8750",
    once: Annotated[
        bool,
        typer.Option(
            "--once",
            help="Print the state as text and exit; status 1 if no service responds.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Show a running live service in the terminal; q quits.

    It reads the page of [bold]tickline live --page 8750[/] and connects again by
    itself. With a password, set TICKLINE_AUTH_PASSWORD as for the service.
    """
    from infra.live.monitoring.client import Client

    client = Client(url, settings_from_environment())
    if once:
        from infra.live.monitoring.text import plain

        text = plain(asyncio.run(client.once()))
        out.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    from infra.live.monitoring.terminal import Monitor

    Monitor(client).run()
