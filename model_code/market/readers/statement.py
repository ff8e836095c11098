"""What a store states about itself in `<root>/tickline.yaml`: profile and time unit.

profile: us-equities     # which faults are normal there: docs/validation.md
timestamp_unit: ms       # of integer time stamps; without it they are refused
"""

from typing import Literal

import fsspec
import pyarrow as pa
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_code.errors import ConfigError, SchemaError
from model_code.market.readers.files import STATEMENT
from model_code.settings import ProfileName

Unit = Literal["s", "ms", "us", "ns"]


class Statement(BaseModel):
    """The file's fields.

    Attributes:
        profile: name of a validation profile; None: not stated.
        timestamp_unit: unit of integer time stamps since 1970 in UTC; None: not stated.
        paths: the file itself, if there is one.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    profile: ProfileName | None = None
    timestamp_unit: Unit | None = None
    paths: tuple[str, ...] = Field(default=(), exclude=True)

    def with_stamps(self, table: pa.Table, where: str) -> pa.Table:
        """`table` with integer time stamps turned into times, if their unit is stated.

        Raises:
            SchemaError: the unit is not stated, or a stamp does not fit.
        """
        if "timestamp" not in table.column_names:
            return table
        column = table["timestamp"]
        if not pa.types.is_integer(column.type):
            return table
        if self.timestamp_unit is None:
            raise SchemaError(
                f"column 'timestamp' has integers ({column.type}): their unit is not stated",
                where=where,
                remedy=f"state it in {STATEMENT} in the store's root: timestamp_unit: ms "
                "(or s, us, ns), or write UTC times",
            )
        try:
            times = column.cast(pa.int64()).cast(pa.timestamp(self.timestamp_unit, "UTC"))
            times = times.cast(pa.timestamp("ns", "UTC"))
        except pa.ArrowInvalid as error:
            raise SchemaError(
                f"column 'timestamp' does not fit the stated unit {self.timestamp_unit}: {error}",
                where=where,
                remedy=f"correct timestamp_unit in {STATEMENT}",
            ) from error
        return table.set_column(table.column_names.index("timestamp"), "timestamp", times)


def read_statement(fs: fsspec.AbstractFileSystem, root: str) -> Statement:
    """Read `<root>/tickline.yaml`; an absent file states nothing.

    Raises:
        ConfigError: the file is not YAML, or a field is unknown or wrong.
    """
    path = f"{root.rstrip('/')}/{STATEMENT}"
    if fs.isfile(root) or not fs.isfile(path):
        return Statement()
    try:
        document = yaml.safe_load(fs.cat_file(path)) or {}
        return Statement.model_validate(document).model_copy(update={"paths": (path,)})
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the store's statement is wrong: {error}",
            where=path,
            remedy="fields: profile (crypto, us-equities, fx), timestamp_unit (s, ms, us, ns)",
        ) from error
