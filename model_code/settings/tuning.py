"""What `tickline tune` searches: named keys of the specification, their values, how long.

A range is written `1e-4..3e-3:log` or `1..4`, a choice `64,128,256` or as a list of YAML.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from model_code.errors import ConfigError
from model_code.settings.base import PositiveInt, Spec
from model_code.settings.changes import changed, from_yaml, leaves
from model_code.settings.specs import NightlySpec

SECTIONS = ("network.", "training.")
EXAMPLES = "e.g. training.learning_rate=1e-4..3e-3:log or network.hidden=64,128,256"
Value = str | int | float | bool | None


class Interval(Spec):
    """A range, both ends included; integers if both ends are."""

    KIND: Literal["interval"] = "interval"
    low: int | float
    high: int | float
    log: bool = False  # equal ratios are equally likely

    @model_validator(mode="after")
    def _rising(self) -> "Interval":
        if not self.low < self.high:
            raise ValueError("the lower end must be below the upper")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range must be above 0")
        return self

    @property
    def integer(self) -> bool:
        """Whether only integers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values to check before the search."""
        return (self.low, self.high)

    def holds(self, value: Value) -> bool:
        """Whether the value can be drawn."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.integer or float(value).is_integer())


class Choices(Spec):
    """One of several values."""

    KIND: Literal["choices"] = "choices"
    values: Annotated[tuple[Value, ...], Field(strict=False, min_length=2)]

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values to check before the search: all."""
        return self.values

    def holds(self, value: Value) -> bool:
        """Whether the value can be drawn."""
        return value in self.values


Dimension = Annotated[Interval | Choices, Field(discriminator="KIND")]


class TuneSpec(Spec):
    """A search.

    Attributes:
        search: what to draw, by dotted path of a network or training key.
        trials: of the whole study, those of earlier runs included.
        folds: blocks of the training days, each validated once per trial.
        study: name to resume by; empty: one that the same search on the same ticks always has.
    """

    KIND: Literal["purged-folds"] = "purged-folds"
    search: Annotated[dict[str, Dimension], Field(min_length=1)]
    trials: PositiveInt = 20
    folds: Annotated[int, Field(ge=2)] = 4
    study: str = ""


def dimension(name: str, written: Any) -> Interval | Choices:
    """Read `1e-4..3e-3:log`, `1..4`, `64,128,256`, or a list.

    Raises:
        ConfigError: it is none of these.
    """
    try:
        if isinstance(written, list):
            return Choices(values=tuple(written))
        text = str(written)
        if ".." in text:
            text, _, scale = text.partition(":")
            low, high = (from_yaml(end) for end in text.split("..", 1))
            if scale not in {"", "log"}:
                raise _unreadable(name, written, f"unknown scale {scale!r}")
            return Interval(low=low, high=high, log=scale == "log")
        return Choices(values=tuple(from_yaml(part) for part in text.split(",")))
    except ValidationError as error:
        reasons = "; ".join(item["msg"] for item in error.errors())
        raise _unreadable(name, written, reasons) from error


def search_space(written: Mapping[str, Any]) -> dict[str, Interval | Choices]:
    """Read every dimension.

    Raises:
        ConfigError: one cannot be read.
    """
    return {name: dimension(name, value) for name, value in written.items()}


def require_searchable(spec: NightlySpec, tune: TuneSpec) -> None:
    """Check before the search that every key exists and takes the ends of its range.

    Raises:
        ConfigError: a key is unknown or of another section, or a value is refused.
    """
    for name, drawn in tune.search.items():
        if not name.startswith(SECTIONS):
            raise ConfigError(
                f"{name} is not searched: only keys of network and training are",
                where="search space",
                remedy="set it for all trials instead: --set " + name + "=VALUE",
            )
        for value in drawn.ends:
            try:
                changed(spec, {name: value})
            except ValidationError as error:
                raise ConfigError(
                    f"{name} cannot be {value}: {error.errors()[0]['msg']}",
                    where="search space",
                    remedy="docs/settings.md lists every field and its type",
                ) from error


def as_given(spec: NightlySpec, tune: TuneSpec) -> dict[str, Value] | None:
    """The specification's own values, to be tried first; None if the space lacks one."""
    held = leaves(spec)
    own = {name: held.get(name) for name in tune.search}
    return own if all(tune.search[name].holds(value) for name, value in own.items()) else None


def _unreadable(name: str, written: Any, reason: str) -> ConfigError:
    return ConfigError(
        f"cannot read the search of {name}: {written!r} ({reason})",
        where="search space",
        remedy="write a range or a choice of at least two, " + EXAMPLES,
    )
