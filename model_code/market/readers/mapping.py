"""Which columns of a desk's own Parquet are what: `mapping.yaml`, read by `mapped_parquet`."""

import json
from difflib import get_close_matches
from typing import Literal

import fsspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_code.errors import ConfigError
from model_code.market.readers.clocks import known_zone
from model_code.market.readers.statement import Unit

FILE = "mapping.yaml"
Value = str | int | bool


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Where(_Fields):
    """Rows to read.

    Attributes:
        column: by its name in the files.
        equals: the value that it has in these rows.
    """

    column: str
    equals: Value


class Aggressor(_Fields):
    """Who the aggressor of a trade was; a value in neither list is unknown.

    Attributes:
        column: by its name in the files.
        bought, sold: values that say so.
    """

    column: str
    bought: tuple[Value, ...] = Field(min_length=1)
    sold: tuple[Value, ...] = Field(min_length=1)


class Section(_Fields):
    """What quotes and trades have in common; columns by their names in the files.

    Attributes:
        files: pattern of the files below the root; `*` also matches `/`.
        where: which rows; None: all.
        timestamp: times, or integers of `unit`.
        unit: of integers; since 1970 in UTC or, with `date`, since local midnight.
        date: dates of times of day; a column, or a key of the files' folders (`date=...`).
        symbol: a column, or a key of the files' folders (`symbol=...`).
        price_unit: what 1 in a price column is worth, e.g. 0.0001.
        size_unit: what 1 in a size column is worth, e.g. 100 for round lots.
        sequence: the source's own number, comparable between quotes and trades.
    """

    kind: Literal["quotes", "trades"]
    files: str = "*.parquet"
    where: Where | None = None
    timestamp: str
    unit: Unit | None = None
    date: str | None = None
    symbol: str = "symbol"
    price_unit: float = Field(default=1.0, gt=0)
    size_unit: float = Field(default=1.0, gt=0)
    sequence: str | None = None

    @property
    def prices(self) -> dict[str, str]:
        """Price columns: Tickline's name -> the files'."""
        return {}

    @property
    def sizes(self) -> dict[str, str]:
        """Size columns: Tickline's name -> the files'."""
        return {}


class QuoteSection(Section):
    """Quotes; without sizes, both are left out."""

    kind: Literal["quotes"] = "quotes"
    bid_price: str
    ask_price: str
    bid_size: str | None = None
    ask_size: str | None = None

    @model_validator(mode="after")
    def _both_sizes(self) -> "QuoteSection":
        if (self.bid_size is None) != (self.ask_size is None):
            raise ValueError("give both of bid_size and ask_size, or neither")
        return self

    @property
    def prices(self) -> dict[str, str]:
        """Price columns: Tickline's name -> the files'."""
        return {"bid_price": self.bid_price, "ask_price": self.ask_price}

    @property
    def sizes(self) -> dict[str, str]:
        """Size columns: Tickline's name -> the files'."""
        sizes = {"bid_size": self.bid_size, "ask_size": self.ask_size}
        return {name: column for name, column in sizes.items() if column}


class TradeSection(Section):
    """Trades; without `aggressor`, they are classified by Lee and Ready."""

    kind: Literal["trades"] = "trades"
    price: str
    size: str
    aggressor: Aggressor | None = None
    trade_id: str | None = None

    @property
    def prices(self) -> dict[str, str]:
        """Price columns: Tickline's name -> the files'."""
        return {"price": self.price}

    @property
    def sizes(self) -> dict[str, str]:
        """Size columns: Tickline's name -> the files'."""
        return {"size": self.size}


class Mapping(_Fields):
    """The file's fields.

    Attributes:
        time_zone: of times without a zone and of times of day, e.g. America/New_York.
        venue: appended to symbols, e.g. XNYS.
    """

    time_zone: str | None = None
    venue: str | None = None
    quotes: QuoteSection
    trades: TradeSection | None = None

    @model_validator(mode="after")
    def _zone(self) -> "Mapping":
        if self.time_zone is not None and not known_zone(self.time_zone):
            raise ValueError(f"no time zone named {self.time_zone!r}, e.g. America/New_York")
        return self

    @property
    def sections(self) -> tuple[Section, ...]:
        """Quotes, then trades if there are any."""
        return (self.quotes,) if self.trades is None else (self.quotes, self.trades)


def read_mapping(fs: fsspec.AbstractFileSystem, path: str) -> tuple[Mapping, bytes]:
    """Read a mapping, and its bytes.

    Raises:
        ConfigError: the file is missing or not YAML, or a field is missing, unknown or wrong.
    """
    try:
        data = bytes(fs.cat_file(path))
        document = yaml.safe_load(data) or {}
        return Mapping.model_validate_json(json.dumps(document)), data
    except FileNotFoundError as error:
        raise ConfigError(
            "there is no mapping of columns",
            where=path,
            remedy="write one (docs/market-formats.md), or name it: parquet:PATH?mapping=FILE",
        ) from error
    except ValidationError as error:
        raise ConfigError(
            "the mapping is wrong: " + "; ".join(_spelled(error)),
            where=path,
            remedy="docs/market-formats.md lists every field",
        ) from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise ConfigError(f"cannot read the mapping: {error}", where=path) from error


def _spelled(error: ValidationError) -> list[str]:
    known = {name for kind in (Mapping, QuoteSection, TradeSection) for name in kind.model_fields}
    texts = []
    for item in error.errors(include_url=False):
        name = ".".join(map(str, item["loc"]))
        text = f"{name}: {item['msg'].removeprefix('Value error, ')}".removeprefix(": ")
        close = get_close_matches(name.rpartition(".")[2], known, n=1)
        if item["type"] == "extra_forbidden":
            text = f"{name}: no such field" + (f", did you mean {close[0]}?" if close else "")
        texts.append(text)
    return texts
