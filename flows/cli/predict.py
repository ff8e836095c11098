"""`tickline predict`: query the serving model."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.options import PANELS, expanded, local, settings_from_environment
from model_code.artifacts import atomic_file
from model_code.errors import SharedStoreError
from model_code.repository.route import Target
from model_code.settings import MAX_BATCH_SIZE, MODEL_NAME, Settings
from model_code.storage.serving import follow_serving
from model_code.training.threshold import DEFAULT_THRESHOLD, decide

if TYPE_CHECKING:
    from model_code.repository.manifest import Manifest

STORE_WAIT_S = 5.0
app = typer.Typer()
out = Console()


@app.command(rich_help_panel=PANELS.serving)
def predict(
    source: Annotated[
        str,
        typer.Argument(
            help="An .npy or .npz file of windows (N, 64, 16), or a market store (its newest day)."
        ),
    ],
    instrument: Annotated[
        str | None,
        typer.Option(
            "--instrument", "-i", help="Instrument of the market store.", show_default="its first"
        ),
    ] = None,
    last: Annotated[int, typer.Option(help="Number of newest windows.", min=1)] = 10,
    version: Annotated[
        int | None,
        typer.Option(
            help="Query this version.", show_default="the one in the route file, else the newest"
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Model name on the server.")] = MODEL_NAME,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Also write the predictions to this CSV file.",
            show_default="none",
            callback=expanded,
        ),
    ] = None,
) -> None:
    """Query the model server and print its predictions.

    Use it to verify that the serving model answers. Windows are 64 rows of the
    16 features (docs/features.md), float32, not standardised.

    Of a market store, windows are computed with the features of the version that
    answers: its manifest names the set, and whom each instrument looks at. Without
    a manifest the set is solo, and the output says so. Windows of a file must be
    the version's own, of finite floats or integers; an .npz file holds one array.

    Server: the one of [bold]tickline triton up[/], TICKLINE_TRITON_URL, or the first
    of TICKLINE_TARGETS that has the version.

    Version: the champion, from the route file of the serving repository
    (TICKLINE_SERVING). Before the first promotion, and for another model: the
    newest loaded version. On a host without the serving repository the route
    comes from the shared store.

    Decision: yes from the version's own threshold, which its training chose; 0.5
    for a version that is not in the serving or staging repository.
    """
    from infra.triton.targets import serving_urls
    from model_code.models.probability import probability
    from model_code.repository.serving import ServingRepository

    settings = settings_from_environment()
    with suppress(SharedStoreError):  # then by the copy of the last time
        follow_serving(settings, STORE_WAIT_S)
    windows = _windows(settings, source, instrument, last)
    urls = serving_urls(settings)
    route_file = ServingRepository(settings.serving_repository).route_file
    if version is None and model == MODEL_NAME and route_file.exists():
        answers, routed = _by_route(urls, route_file, windows), ", from the route file"
    else:
        answers, routed = _by_name(urls[0], model, version, windows), ""
    found = {target: _threshold(settings, target) for _, target, _ in answers}
    note = _note(settings, source)
    served = "; ".join(
        f"{target.model}, version {target.version}, yes from {threshold:.4g}{note(target)}"
        for target, threshold in sorted(
            found.items(), key=lambda one: (one[0].model, one[0].version)
        )
    )
    names = [name for _, _, own in answers for name in own]
    p_N = np.concatenate([probability(logits_BC) for logits_BC, _, _ in answers])
    decided_N = np.concatenate(
        [decide(probability(logits_BC), found[target]) for logits_BC, target, _ in answers]
    )
    table = Table("window", "p(opportunity)", "decision", title=served + routed)
    for name, p, yes in zip(names, p_N, decided_N, strict=True):
        table.add_row(escape(name), f"{p:.4f}", "yes" if yes else "no")
    out.print(table)
    if to is not None:
        rows = (f"{name},{p:.9g}" for name, p in zip(names, p_N, strict=True))
        with atomic_file(to) as temporary:
            temporary.write_text("\n".join(["window,p_opportunity", *rows]) + "\n")


Named = tuple[NDArray[np.float32], list[str]]  # windows (N, 64, 16) and their names
WindowsOf = Callable[[Target], Named]
Answer = tuple[NDArray[np.float32], Target, list[str]]  # logits (B, 2), of the version, of windows


def _threshold(settings: Settings, target: Target) -> float:
    """Return the threshold of a version's decisions; the default if its manifest is not here."""
    manifest = _manifest(settings, target)
    return DEFAULT_THRESHOLD if manifest is None else manifest.threshold


def _note(settings: Settings, source: str) -> Callable[[Target], str]:
    """Return what to say of the features that a version's windows were computed with."""
    if _file(source) is not None:
        return lambda _: ""

    def note(target: Target) -> str:
        manifest = _manifest(settings, target)
        if manifest is None:
            return ", features solo (no manifest here)"
        return f", features {manifest.seen.feature_set}"

    return note


def _manifest(settings: Settings, target: Target) -> "Manifest | None":
    """Return a version's manifest from the serving or staging repository; None if not there."""
    from model_code.repository.manifest import MANIFEST_FILE, Manifest
    from model_code.repository.serving import ServingRepository
    from model_code.serving.candidate import CANDIDATE_NAME
    from model_code.serving.swap import BRIDGE_NAMES

    serving = ServingRepository(settings.serving_repository)
    folder = settings.staging_repository / MODEL_NAME / str(target.version)
    served = target.model in (MODEL_NAME, *BRIDGE_NAMES) or _is_ensemble(target.model)
    if served and target.version in serving.known():
        folder = serving.folder(target.version)
    known = (served or target.model == CANDIDATE_NAME) and (folder / MANIFEST_FILE).exists()
    return Manifest.load(folder) if known else None


def _is_ensemble(model: str) -> bool:
    """Whether a served name is that of a version's ensemble."""
    from model_code.repository.ensemble import ENSEMBLE_NAME

    return model == ENSEMBLE_NAME


def _by_route(urls: Sequence[str], route_file: Path, windows: WindowsOf) -> list[Answer]:
    """Return logits by the route, a canary's share included, and the version of each answer."""
    from model_code.repository.route import Route
    from model_code.serving.client import TIMEOUT_S
    from model_code.serving.routed import RoutedClient

    route = Route.load(route_file)
    for target in filter(None, (route.champion, route.candidate)):
        windows(target)  # computed before a deadline runs

    async def ask() -> list[Answer]:
        found: list[Answer] = []
        names: list[str] = []
        async with RoutedClient(urls, route_file) as client:
            while not found or len(names) > MAX_BATCH_SIZE * len(found):
                part = slice(MAX_BATCH_SIZE * len(found), MAX_BATCH_SIZE * (len(found) + 1))
                one = await client.ask(partial(_part, windows, part), TIMEOUT_S)
                _, names = windows(one.target)
                found.append((one.logits_BC, one.target, names[part]))
        return found

    return asyncio.run(ask())


def _part(windows: WindowsOf, part: slice, target: Target) -> NDArray[np.float32]:
    return windows(target)[0][part]


def _by_name(url: str, model: str, version: int | None, windows: WindowsOf) -> list[Answer]:
    """Return logits of a version, None for the newest loaded one, and which version answered."""
    from model_code.serving.client import TritonClient

    with TritonClient(url) as client:
        if version is None:
            version = client.statistics(model).version
        target = Target(model=model, version=version)
        x_NTF, names = windows(target)
        parts = [slice(i, i + MAX_BATCH_SIZE) for i in range(0, len(x_NTF), MAX_BATCH_SIZE)]
        answers = [client.ask(x_NTF[part], model=model, version=version) for part in parts]
    return [(one.logits_BC, target, names[part]) for one, part in zip(answers, parts, strict=True)]


def _windows(settings: Settings, source: str, instrument: str | None, last: int) -> WindowsOf:
    """Return the function that gives a version its last windows."""
    from model_code.features.newest import NewestWindows
    from model_code.features.served import SOLO
    from model_code.features.windows_file import read_windows

    file = _file(source)
    if file is not None:
        named = read_windows(file, last)
        return lambda _: named
    newest = NewestWindows(source, instrument, last)

    def windows(target: Target) -> Named:
        manifest = _manifest(settings, target)
        if manifest is None or manifest.features is None:
            return newest.windows(SOLO)
        return newest.windows(manifest.features, manifest.features.reset_gap_s)

    return windows


def _file(source: str) -> Path | None:
    """Return the path of a file of windows; None for a market store."""
    from model_code.features.windows_file import is_windows_file

    path = local(source)
    return path if path is not None and is_windows_file(path) else None
