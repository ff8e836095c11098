"""Options shared by the commands of the live path."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import read_spec

if TYPE_CHECKING:
    from infra.live.spec import ServiceSpec

Bootstrap = Annotated[
    str | None,
    typer.Option(help="host:port of Kafka brokers.", show_default="127.0.0.1:9092"),
]
Demo = Annotated[
    bool,
    typer.Option(
        "--demo",
        help="Settings for the demo broker in memory (tickline up --with tansu).",
    ),
]


Symbols = Annotated[
    list[str] | None,
    typer.Option(
        help="Only these instruments and their leaders; repeat for several.", show_default="all"
    ),
]
Dates = Annotated[
    list[str] | None,
    typer.Option(help="Only this date, YYYY-MM-DD; repeat for several.", show_default="all"),
]
SPEED = "max, or a multiple of real time: 1, 10."


def read_service_spec(
    path: Path | None, bootstrap: str | None, *, demo: bool, **changes: Any
) -> "ServiceSpec":
    """The service's specification from a file and the command line.

    Args:
        path: YAML; None: the defaults.
        bootstrap: overrides the file's brokers.
        demo: start from what the demo broker needs.
        changes: override other values; None keeps one.

    Raises:
        ConfigError: it cannot be read, or a value is wrong.
    """
    from infra.live.kafka.clients import DEMO
    from infra.live.spec import ServiceSpec

    start = {"kafka": DEMO} if demo else {}
    return read_spec(ServiceSpec, path, {"kafka": {"bootstrap": bootstrap}, **changes}, start)
