"""The specification that a command starts: defaults, a file or an earlier run, with changes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from flows.cli.options import preset, problems, read_spec
from model_code.errors import ConfigError
from model_code.settings import NightlySpec, Settings
from model_code.settings.changes import assign, differences, leaves, shown

out = Console()


def night_spec(
    settings: Settings,
    *,
    path: Path | None,
    from_run: str | None,
    network: str | None,
    changes: dict[str, Any],
    assignments: Sequence[str] | None,
) -> NightlySpec:
    """Read the specification and change it; print what differs from the run it came from.

    Args:
        settings: where MLflow is.
        path: YAML file.
        from_run: name or id of an earlier run, to start from its specification.
        network: preset.
        changes: from options; None keeps a value.
        assignments: `path=value`, over everything else.

    Raises:
        ConfigError: options that exclude each other, no such run or key, or a wrong value.
    """
    if from_run is None:
        return _assigned(
            read_spec(NightlySpec, path, changes, preset(network)), assignments or (), path
        )
    if path or network:
        raise ConfigError(
            f"--from-run and {'--spec' if path else '--network'} exclude each other",
            remedy="to change a value of the run: --set, e.g. --set network.KIND=mlp",
        )
    from tasks.runs.stored import specification  # takes seconds to import

    before = specification(settings, from_run)
    start = before.model_dump(mode="json")
    wanted = _assigned(read_spec(NightlySpec, None, changes, start), assignments or (), None)
    changed = [
        f"{name} {shown(old)} -> {shown(new)}"
        for name, (old, new) in differences(leaves(before), leaves(wanted)).items()
    ]
    text = f"changed: {', '.join(changed)}" if changed else "nothing changed"
    out.print(f"from {escape(from_run)}, {escape(text)}", soft_wrap=True, highlight=False)
    return wanted


def _assigned(spec: NightlySpec, assignments: Sequence[str], path: Path | None) -> NightlySpec:
    try:
        return assign(spec, assignments)
    except ValidationError as error:
        raise ConfigError(
            "the specification is wrong: " + problems(error),
            where="--set" + (f" over {path}" if path else ""),
            remedy="docs/settings.md lists every field",
        ) from error
