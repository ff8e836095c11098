"""Shared by the commands: help panels, options, settings, specifications from YAML."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import typer
import yaml
from pydantic import BaseModel, ValidationError

from infra.auth import remember_secrets
from infra.proxies import require_usable
from model_code.errors import ConfigError
from model_code.market.readers.named import absolute
from model_code.settings import ENGINE_NAMES, PRESETS, Settings, Spec, folder
from model_code.settings.changes import from_yaml


class _Panels(NamedTuple):
    """Groups of `tickline --help`, by who uses the commands."""

    nights: str = "Nightly: retrain and judge"
    benchmark: str = "Benchmark: compare engines, try other goals"
    promotion: str = "Promotion: for the release manager"
    serving: str = "Serving: run and query the model server"
    oncall: str = "On call: a run failed"
    stack: str = "Stack: servers, worker, web pages"
    monitoring: str = "Monitoring and clean-up"
    data: str = "Data: inspect and download"


def expanded(path: Path | None) -> Path | None:
    """Replace `~` in a path; the callback of every option and argument that is one.

    The shell does so only for a word that begins with it: not in --out=~/night.

    Raises:
        typer.BadParameter: the home folder of that user is not known.
    """
    try:
        return None if path is None else folder.expanded(path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


PANELS = _Panels()
S = TypeVar("S", bound=Spec)

DATA = "Market store: a folder, a CSV file, any fsspec URI, or simulated:?seed=7"
Data = Annotated[
    str | None,
    typer.Option(
        "--data", "-d", help=f"{DATA}.", show_default="TICKLINE_MARKET, else a simulated market"
    ),
]
OnCluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Run instrument-days' stages on processes:N, dask:N, ray:N, a Dask scheduler's "
        "tcp://HOST:PORT or Ray's ray://HOST:PORT.",
        show_default="TICKLINE_CLUSTER, else one by one in this process",
    ),
]
SpecFile = Annotated[
    Path | None,
    typer.Option(
        help="YAML of a specification; other options override its values.",
        show_default="built-in defaults",
        callback=expanded,
    ),
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        "-e",
        help=f"Only these engines; repeat for several: {', '.join(ENGINE_NAMES)}.",
        show_default="all",
    ),
]


Network = Annotated[
    str | None,
    typer.Option(
        help=f"One network alone, with its training: {', '.join(PRESETS)} (docs/models.md).",
        show_default="several, compared",
    ),
]


FromRun = Annotated[
    str | None,
    typer.Option(
        help="Start from the specification of this earlier run (name or id), on its test date.",
        show_default="built-in defaults",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one value, e.g. training.learning_rate=3e-4; repeat for several.",
        show_default="none",
    ),
]


Key = Annotated[
    Path | None,
    typer.Option(
        help="SSH key to sign with; the .pub file if ssh-agent holds it.",
        show_default="no signature",
        callback=expanded,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Sign without asking.")]
ServedVersion = Annotated[
    int | None,
    typer.Option(help="Of this version.", show_default="the serving one, else the newest staged"),
]
StagedByRun = Annotated[
    str | None,
    typer.Option(help="Of the version that this nightly staged (name or id).", show_default="none"),
]


def default_of(kind: type[BaseModel], field: str) -> str:
    """Return a field's default for --help, e.g. `default_of(NightlySpec, "training.epochs")`."""
    name, _, rest = field.partition(".")
    value = kind.model_fields[name].default
    return default_of(type(value), rest) if rest else str(value)


def settings_from_environment(**options: str | None) -> Settings:
    """Read the settings from the environment, and from options that stand for one of them.

    Args:
        options: values by the setting's name; they are put into the environment, where the flow
            reads them. None changes nothing.

    Raises:
        ConfigError: a setting is wrong, or the environment's proxy cannot be used.
    """
    require_usable(os.environ)
    given = {name: value for name, value in options.items() if value is not None}
    os.environ.update({f"TICKLINE_{name.upper()}": value for name, value in given.items()})
    try:
        settings = Settings().resolved()
    except ValidationError as error:
        raise ConfigError(
            "a TICKLINE_ setting is wrong: " + _settings_problems(error),
            where="environment or .env",
            remedy="see docs/settings.md",
        ) from error
    remember_secrets(settings)
    return settings


def _settings_problems(error: ValidationError) -> str:
    """Format validation errors without the value found: it may be a password."""
    found = []
    for item in error.errors(include_input=False):
        name, *below = (*map(str, item["loc"]), "")
        place = ".".join([f"TICKLINE_{name.upper()}", *below]).strip(".")
        what = item["msg"].removeprefix("Value error, ")
        found.append(f"{place}: {what}" if name else what)
    return "; ".join(found)


def market_uri(data: str | None, settings: Settings, from_run: str | None = None) -> str | None:
    """Return the requested market, a path made absolute; None means simulated, or the run's."""
    uri = data or (None if from_run else settings.market)
    if uri is None:
        return None
    path = local(uri)
    return absolute(uri) if path is None else str(path.resolve())


def local(uri: str) -> Path | None:
    """The path on this machine, `~` replaced; None for a URI.

    Raises:
        ConfigError: the home folder of that user is not known.
    """
    if ":" in uri:
        return None
    try:
        return folder.expanded(Path(uri))
    except ValueError as error:
        raise ConfigError(str(error), where=uri) from error


def require_different(ports: Mapping[str, int | None]) -> None:
    """Refuse two options with the same port, before anything starts.

    Args:
        ports: by option; None: not used.

    Raises:
        ConfigError: two are the same.
    """
    options: dict[int, str] = {}
    for option, port in ports.items():
        if port is None:
            continue
        if port in options:
            raise ConfigError(
                f"{options[port]} and {option} are both {port}",
                where="command line",
                remedy="choose different ports",
            )
        options[port] = option


def preset(network: str | None) -> dict[str, Any]:
    """The named starting point, or none.

    Raises:
        ConfigError: there is no preset of this name.
    """
    if network is None:
        return {}
    if network not in PRESETS:
        raise ConfigError(
            f"no network named {network!r}", remedy=f"choose one of {', '.join(PRESETS)}"
        )
    return PRESETS[network]


def read_spec(
    kind: type[S],
    path: Path | None,
    changes: dict[str, Any],
    start: dict[str, Any] | None = None,
) -> S:
    """Read a specification from a YAML file and change some values; None keeps a value.

    Args:
        kind: of specification.
        path: YAML file; None: the defaults.
        changes: override the file.
        start: values that the file overrides, e.g. a preset.

    Raises:
        ConfigError: it cannot be read, or a value is wrong.
    """
    try:
        document = from_yaml(path.read_text()) if path else {}
        if not isinstance(document, dict):
            raise ConfigError("a specification must be a mapping", where=str(path))
        return kind.model_validate(_merged(_over(start or {}, document), changes))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the specification: {error}", where=str(path)) from error
    except ValidationError as error:
        raise ConfigError(
            "the specification is wrong: " + problems(error),
            where=str(path or "command line"),
            remedy="docs/settings.md lists every field",
        ) from error


def _over(start: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The document's values over those of `start`; a null of the document counts."""
    merged = dict(start)
    for name, value in document.items():
        below = merged.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[name] = _over(below, value)
        else:
            merged[name] = value
    return merged


def _merged(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(document)
    for name, value in changes.items():
        if isinstance(value, dict):
            section = _merged(merged.get(name) or {}, value)
            if section:
                merged[name] = section
        elif value is not None:
            merged[name] = value
    return merged


def problems(error: ValidationError) -> str:
    """Format validation errors: field, message, value found."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {item['msg']} (found {item['input']!r})"
        for item in error.errors()
    )
