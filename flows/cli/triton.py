"""`tickline triton up|down|status|restore|logs|ensemble`: the model server on this machine."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.options import (
    ServedVersion,
    StagedByRun,
    expanded,
    require_different,
    settings_from_environment,
)
from flows.cli.targets import show_targets
from model_code.errors import ServingError
from model_code.settings import Settings
from model_code.storage.serving import restore_serving

app = typer.Typer(
    no_args_is_help=True,
    help="""Run NVIDIA's Triton server on this machine, without a GPU and without a container.

    Use it to serve the promoted model without the stack. The first [bold]up[/] installs
    the server in its own environment (510 MB, once for all homes). It listens on
    loopback only and serves the repository that promotions write.""",
)
out = Console()


@app.command()
def up(
    http_port: Annotated[int, typer.Option(help="HTTP endpoint.", min=1, max=65535)] = 8000,
    grpc_port: Annotated[
        int, typer.Option(help="gRPC endpoint: what clients use.", min=1, max=65535)
    ] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Prometheus metrics.", min=1, max=65535)] = 8002,
) -> None:
    """Start the server; return once every version answers its golden requests.

    A keeper restarts it if it exits, and loads a version again that stops
    answering, until [bold]down[/]. If it is running already, it is only checked.
    """
    from infra.triton import daemon, install
    from infra.triton.server import Ports

    require_different(
        {"--http-port": http_port, "--grpc-port": grpc_port, "--metrics-port": metrics_port}
    )
    settings = settings_from_environment()
    install.install(settings, say=out.print)
    server = daemon.up(settings, Ports(http=http_port, grpc=grpc_port, metrics=metrics_port))
    out.print(
        f"Triton is running: pid {server.pid}, gRPC {server.grpc_url}, metrics {server.metrics_url}"
    )
    status()


@app.command()
def down() -> None:
    """Stop the server after it has answered its open requests."""
    from infra.triton import daemon

    out.print("stopped" if daemon.down(settings_from_environment()) else "no server was running")


@app.command()
def status() -> None:
    """Show the server and each model version: state, requests, batch size, times.

    It asks each version a golden request; the exit status is 1 if one does not
    answer it. Of several targets it shows each, and how it compares with the route.
    """
    from infra.triton import daemon

    settings = settings_from_environment()
    if not settings.targets:
        if not _show(settings, daemon.serving_url(settings)):
            raise typer.Exit(1)
        return
    for name, target in settings.targets.items():
        try:
            _show(settings, target.control_url)
        except ServingError as error:
            out.print(f"[red]target {name} does not answer[/]: {target.control_url}, {error.what}")
    show_targets(settings)


def _show(settings: Settings, url: str) -> bool:
    """Print a server; whether every version of the repository answers."""
    from infra.triton.key import control_key
    from infra.triton.serve import silent
    from model_code.repository.serving import ServingRepository
    from model_code.serving.client import TritonClient

    repository = ServingRepository(settings.serving_repository)
    with TritonClient(url, control_key(settings)) as client:
        name = client.server()
        states = client.index()
        table = Table(
            "model", "version", "state", "requests", "failed", "per batch", "queue", "compute",
            title=f"{name} at {client.url}",
        )  # fmt: skip
        for state in states:
            cells = ["", "", "", "", ""]
            if state.state == "READY":
                found = client.statistics(state.model, state.version)
                each = max(1, found.requests)
                cells = [
                    str(found.requests),
                    str(found.failed),
                    f"{found.inferences / max(1, found.executions):.1f}",
                    f"{found.queue_ns / each / 1e6:.2f} ms",
                    f"{found.compute_infer_ns / each / 1e6:.2f} ms",
                ]
            version = "" if state.version is None else str(state.version)
            shown = f"{state.state} {state.reason}".strip() or "never loaded"
            table.add_row(state.model, version, shown, *cells)
        out.print(table)
        faults = {} if settings.targets else silent(repository, client)
    if not states:
        out.print(
            f"no model to serve yet: {settings.serving_repository} is empty. Promote one first"
        )
    for target, why in faults.items():
        out.print(
            f"[red]{target.model}, version {target.version}, does not answer[/]: {escape(why)}",
            soft_wrap=True,
        )
    if faults:
        out.print(
            "it is loaded again within seconds; if not: tickline triton down, then "
            "tickline triton up; to serve the version before it: tickline rollback"
        )
    return not faults


@app.command()
def ensemble(
    to: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the new model repository.", callback=expanded),
    ],
    version: ServedVersion = None,
    run: StagedByRun = None,
) -> None:
    """Write a blend as a Triton ensemble, whose parts are models of their own.

    Use it to see what each part answers and how long it takes. The ensemble has
    the tensors of the single graph, which is faster (docs/serving.md). Before
    the folder appears, the real server has loaded both, and their logits agree
    on the windows recorded with the version.
    """
    from flows.runs.ensemble import make_ensemble

    made, found = make_ensemble(settings_from_environment(), to, version, run)
    table = Table(
        title=f"Version {made} as an ensemble",
        caption="p50 in ms at batch 1, one client",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("model")
    for heading in ("weight", "in the server", "for the caller"):
        table.add_column(heading, justify="right")
    for row in found.times:
        weight = "" if row.weight is None else f"{row.weight:.3f}"
        caller = "" if row.client_ms is None else f"{row.client_ms:.2f}"
        table.add_row(row.model, weight, f"{row.server_ms:.2f}", caller)
    out.print(table)
    out.print(
        f"logits as the single graph's on {found.windows} windows (largest difference "
        f"{found.error:.1g})"
    )
    out.print(f"model repository: {to}", soft_wrap=True)


@app.command()
def restore(
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over", help="Make this the serving host in place of another, which is lost."
        ),
    ] = False,
) -> None:
    """Fill the serving repository from the shared store: on a new host, or after a lost disk.

    Use it once no process of the old host writes any more: stop its Triton and its
    worker. Afterwards [bold]tickline triton up[/] serves the champion again; restart
    this host's worker, so that it takes promotions.
    """
    settings = settings_from_environment()
    found = restore_serving(settings, take_over=take_over)
    versions = ", ".join(map(str, found)) or "none has served yet"
    out.print(f"versions here: {versions}. To serve: tickline triton up")


@app.command()
def logs(
    lines: Annotated[int, typer.Option("--lines", "-n", help="Number of last lines.")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow until Ctrl-C.")] = False,
) -> None:
    """Print the server's log. Errors about CUDA, NVML and DCGM only mean that there is no GPU."""
    log = settings_from_environment().home / "logs" / "triton.log"
    if not log.exists():
        out.print(f"no log yet: {log}")
        return
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), str(log)]
    os.execvp(command[0], command)  # noqa: S606  tail, with our own arguments
