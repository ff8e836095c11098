"""Which targets have the serving version: the record that a promotion or `reconcile` leaves.

It is a file beside the route, not part of it: clients of an earlier version read the route.
"""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from model_code.artifacts import atomic_file

FILE = "targets.json"


class TargetStates(BaseModel):
    """What the last change found.

    Attributes:
        version: that should serve; None if none does.
        at: UTC, ISO 8601.
        level: names of the targets that have it.
        behind: why the others do not, by name.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: int | None = None
    at: str = ""
    level: tuple[str, ...] = ()
    behind: dict[str, str] = {}

    @classmethod
    def load(cls, state: Path) -> Self:
        """Read the record; an empty one if it is absent or not readable.

        Args:
            state: folder of the serving repository's state.
        """
        try:
            return cls.model_validate_json((state / FILE).read_bytes())
        except (FileNotFoundError, ValidationError):  # the next change writes it again
            return cls()

    @classmethod
    def save(
        cls, state: Path, version: int | None, names: tuple[str, ...], behind: Mapping[str, str]
    ) -> Self:
        """Write the record now; `names` are all targets."""
        found = cls(
            version=version,
            at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            level=tuple(name for name in names if name not in behind),
            behind=dict(behind),
        )
        with atomic_file(state / FILE) as path:
            path.write_text(found.model_dump_json(indent=2) + "\n")
        return found
