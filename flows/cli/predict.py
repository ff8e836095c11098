"""`tickline predict`: query the serving model."""

import asyncio
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.options import PANELS, settings_from_environment
from model_code.artifacts import atomic_file
from model_code.errors import ConfigError
from model_code.repository.route import Target
from model_code.settings import (
    FEATURE_COUNT,
    MAX_BATCH_SIZE,
    MODEL_NAME,
    SEQUENCE_LENGTH,
    Settings,
)
from model_code.training.threshold import DEFAULT_THRESHOLD, decide

app = typer.Typer()
out = Console()


@app.command(rich_help_panel=PANELS.serving)
def predict(
    source: Annotated[
        str,
        typer.Argument(
            help="An .npy file of windows (N, 64, 16), or a market store (its newest day)."
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
            "--out", "-o", help="Also write the predictions to this CSV file.", show_default="none"
        ),
    ] = None,
) -> None:
    """Query the model server and print its predictions.

    Use it to verify that the serving model answers. Windows are 64 rows of the
    16 features (docs/features.md), float32, not standardised.

    Server: the one of [bold]tickline triton up[/], or TICKLINE_TRITON_URL.

    Version: the champion, from the route file of the serving repository
    (TICKLINE_SERVING). Before the first promotion, and for another model: the
    newest loaded version.

    Decision: yes from the version's own threshold, which its training chose; 0.5
    for a version that is not in the serving or staging repository.
    """
    from infra.triton.daemon import serving_url
    from model_code.models.probability import probability
    from model_code.repository.serving import ServingRepository

    settings = settings_from_environment()
    url = serving_url(settings)
    route_file = ServingRepository(settings.serving_repository).route_file
    x_NTF, names = _file(source) if source.endswith(".npy") else _newest(source, instrument, last)
    x_NTF, names = x_NTF[-last:], names[-last:]
    parts = [x_NTF[i : i + MAX_BATCH_SIZE] for i in range(0, len(x_NTF), MAX_BATCH_SIZE)]
    if version is None and model == MODEL_NAME and route_file.exists():
        answers, source = _by_route(url, route_file, parts), ", from the route file"
    else:
        answers, source = _by_name(url, model, version, parts), ""
    found = {target: _threshold(settings, target) for _, target in answers}
    served = "; ".join(
        f"{target.model}, version {target.version}, yes from {threshold:.4g}"
        for target, threshold in sorted(
            found.items(), key=lambda one: (one[0].model, one[0].version)
        )
    )
    p_N = np.concatenate([probability(logits_BC) for logits_BC, _ in answers])
    decided_N = np.concatenate(
        [decide(probability(logits_BC), found[target]) for logits_BC, target in answers]
    )
    table = Table("window", "p(opportunity)", "decision", title=served + source)
    for name, p, yes in zip(names, p_N, decided_N, strict=True):
        table.add_row(escape(name), f"{p:.4f}", "yes" if yes else "no")
    out.print(table)
    if to is not None:
        rows = (f"{name},{p:.9g}" for name, p in zip(names, p_N, strict=True))
        with atomic_file(to) as temporary:
            temporary.write_text("\n".join(["window,p_opportunity", *rows]) + "\n")


Answer = tuple[NDArray[np.float32], Target]


def _threshold(settings: Settings, target: Target) -> float:
    """Return the threshold of a version's decisions; the default if its manifest is not here."""
    from model_code.repository.manifest import MANIFEST_FILE, Manifest
    from model_code.repository.serving import ServingRepository
    from model_code.serving.candidate import CANDIDATE_NAME

    serving = ServingRepository(settings.serving_repository)
    folder = settings.staging_repository / MODEL_NAME / str(target.version)
    if target.model == MODEL_NAME and target.version in serving.known():
        folder = serving.folder(target.version)
    known = target.model in (MODEL_NAME, CANDIDATE_NAME) and (folder / MANIFEST_FILE).exists()
    return Manifest.load(folder).threshold if known else DEFAULT_THRESHOLD


def _by_route(url: str, route_file: Path, parts: list[NDArray[np.float32]]) -> list[Answer]:
    """Return logits by the route, a canary's share included, and the version of each answer."""
    from model_code.serving.client import TIMEOUT_S
    from model_code.serving.routed import RoutedClient

    async def ask() -> list[Answer]:
        async with RoutedClient(url, route_file) as client:
            answers = [await client.ask(x_BTF, TIMEOUT_S) for x_BTF in parts]
        return [(one.logits_BC, one.target) for one in answers]

    return asyncio.run(ask())


def _by_name(
    url: str, model: str, version: int | None, parts: list[NDArray[np.float32]]
) -> list[Answer]:
    """Return logits of a version, None for the newest loaded one, and which version answered."""
    from model_code.serving.client import TritonClient

    with TritonClient(url) as client:
        answers = [client.ask(x_BTF, model=model, version=version) for x_BTF in parts]
    return [(one.logits_BC, Target(model=model, version=one.version)) for one in answers]


def _file(source: str) -> tuple[NDArray[np.float32], list[str]]:
    try:
        x_NTF = np.load(Path(source).expanduser(), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the windows: {error}", where=source) from error
    if x_NTF.ndim != 3 or x_NTF.shape[1:] != (SEQUENCE_LENGTH, FEATURE_COUNT) or not len(x_NTF):
        raise ConfigError(
            f"the file holds {x_NTF.shape}, expected (N, {SEQUENCE_LENGTH}, {FEATURE_COUNT})",
            where=source,
        )
    return x_NTF.astype(np.float32), [str(number) for number in range(len(x_NTF))]


def _newest(uri: str, instrument: str | None, last: int) -> tuple[NDArray[np.float32], list[str]]:
    from model_code.features.batch import compute
    from model_code.features.windows import gather, valid_ends
    from model_code.market.quality import quarantine
    from model_code.market.store import open_market
    from model_code.settings import FeatureSpec, ValidationSpec

    store = open_market(uri)
    days = [day for day in store.catalog() if instrument in (None, day.symbol)]
    if not days:
        raise ConfigError(
            f"no instrument {instrument}", where=uri, remedy="list them: tickline data describe"
        )
    day = next(day for day in days if day.date == days[-1].date)
    good, _, _ = quarantine(store.read(day), day, ValidationSpec(profile=store.statement.profile))
    rows = compute(good, FeatureSpec())
    # inference needs no labels: with dummy labels every window is valid
    ends = valid_ends(rows.segment_N, np.zeros(len(rows.segment_N), np.int8))[-last:]
    if not len(ends):
        raise ConfigError(
            f"fewer than {SEQUENCE_LENGTH} consecutive ticks",
            where=f"{uri}, {day.symbol} {day.date}",
        )
    stamps = np.asarray(rows.timestamp_N[ends], "datetime64[ns]")
    return gather(rows.features_NF, ends), [f"{day.symbol} {stamp}" for stamp in stamps]
