"""Specifications as YAML, and changes of single keys, named by dotted paths."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import yaml

from model_code.errors import ConfigError
from model_code.settings.base import Spec

S = TypeVar("S", bound=Spec)
KIND = "KIND"


class _Loader(yaml.SafeLoader):
    """YAML with the numbers people write (`3e-4`), and with dates as text, as specifications do."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def from_yaml(text: str) -> Any:
    """Parse YAML; `3e-4` is a number and `2024-08-08` a text.

    Raises:
        yaml.YAMLError: it is malformed.
    """
    return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader


def to_yaml(spec: Spec) -> str:
    """The whole specification, defaults included; `--spec` reads it back."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def leaves(spec: Spec) -> dict[str, Any]:
    """Every value by its dotted path, e.g. `training.learning_rate`; lists are values."""
    return flat(spec.model_dump(mode="json"))


def flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """Every value of a nested mapping by its dotted path."""
    return dict(_leaves(document, ""))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(old, new) of every key whose value differs; None where one side has no such key.

    Args:
        old: values by dotted path (`leaves`).
        new: the same.
    """
    return {
        name: (old.get(name), new.get(name))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }


def shown(value: Any) -> str:
    """A value of a specification as one line of YAML."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).split("\n", 1)[0]


def assign(spec: S, assignments: Sequence[str]) -> S:
    """Change single keys, each given as `path=value` with a YAML value.

    A new `KIND` of a section starts that section from the new kind's defaults.

    Raises:
        ConfigError: an assignment is not `path=value`, or there is no such key.
        pydantic.ValidationError: a value is wrong.
    """
    pairs = [_pair(text) for text in assignments]
    return changed(spec, dict(pairs))


def changed(spec: S, values: Mapping[str, Any]) -> S:
    """Change single keys, given by dotted path; see `assign`.

    Raises:
        ConfigError: there is no such key.
        pydantic.ValidationError: a value is wrong.
    """
    kinds = {name: value for name, value in values.items() if name.endswith("." + KIND)}
    document = _given(spec, spec.model_dump(mode="json"))
    known = leaves(spec)
    for name, value in kinds.items():
        _require_known(name, known)
        if known[name] != value:
            _put(document, name.removesuffix("." + KIND), {KIND: value})
    if kinds:
        spec = type(spec).model_validate(document)
        known = leaves(spec)
    for name, value in values.items():
        _require_known(name, known)
        _put(document, name, value)
    return type(spec).model_validate(document)


def _given(spec: Spec, document: dict[str, Any]) -> dict[str, Any]:
    """The values that were set, and every kind: what is a default now stays one."""
    given: dict[str, Any] = {}
    for name, value in document.items():
        section = getattr(spec, name)
        if name == KIND or name in spec.model_fields_set:
            given[name] = _given(section, value) if isinstance(section, Spec) else value
    return given


def _leaves(document: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(
            f"not a change of one key: {text!r}",
            where="--set",
            remedy="write path=value, e.g. --set training.learning_rate=3e-4",
        )
    try:
        return name.strip(), from_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"the value of {name.strip()} is not YAML: {value!r}",
            where="--set",
            remedy="quote it for the shell, and lists as [a, b]",
        ) from error


def _require_known(name: str, known: Mapping[str, Any]) -> None:
    if name in known:
        return
    inside = [other for other in known if other.startswith(name + ".")]
    section, _, last = name.rpartition(".")
    beside = [other for other in known if section and other.rpartition(".")[0] == section]
    same = [other for other in known if other.rpartition(".")[2] == last]
    near = inside or [*dict.fromkeys(same + beside)] or difflib.get_close_matches(name, known)
    raise ConfigError(
        f"{name} is a section, not a key" if inside else f"no key is named {name}",
        where="specification",
        remedy=("choose one of: " + ", ".join(near))
        if near
        else "docs/settings.md lists every key",
    )


def _put(document: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        document = document.setdefault(section, {})
    document[last] = value
