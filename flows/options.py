"""What commands share: settings, a market's address, a specification from YAML and options."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError

from model_code.errors import ConfigError
from model_code.settings import NightlySpec, Settings

DATA = "Market store: a folder, a CSV file, any fsspec URI, or simulated:?seed=7"
Data = Annotated[
    str | None, typer.Option("--data", "-d", help=f"{DATA}. Default: TICKLINE_MARKET.")
]
SpecFile = Annotated[
    Path | None,
    typer.Option(help="YAML of a whole specification; other options override its values."),
]


def settings_from_environment() -> Settings:
    """Settings of the environment.

    Raises:
        ConfigError: one of them is wrong.
    """
    try:
        return Settings().resolved()
    except ValidationError as error:
        raise ConfigError(
            "a TICKLINE_ setting is wrong: " + problems(error),
            where="environment or .env",
            remedy="see docs/settings.md",
        ) from error


def market_uri(data: str | None, settings: Settings) -> str | None:
    """The market asked for, a path made absolute; None means simulated."""
    uri = data or settings.market
    if uri is None or ":" in uri:
        return uri
    return str(Path(uri).expanduser().resolve())


def nightly_spec(path: Path | None, changes: dict[str, Any]) -> NightlySpec:
    """The specification of a YAML file with some values changed; None changes nothing.

    Raises:
        ConfigError: it cannot be read, or a value is wrong.
    """
    try:
        document = yaml.safe_load(path.read_text()) if path else {}
        if not isinstance(document, dict):
            raise ConfigError("a specification is a mapping", where=str(path))
        return NightlySpec.model_validate(_merged(document, changes))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the specification: {error}", where=str(path)) from error
    except ValidationError as error:
        raise ConfigError(
            "the specification is wrong: " + problems(error),
            where=str(path or "command line"),
            remedy="tickline nightly --help explains every option",
        ) from error


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
    """What was wrong, where, and what was found there."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {item['msg']} (found {item['input']!r})"
        for item in error.errors()
    )
