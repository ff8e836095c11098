"""Several Triton servers as targets of promotions: `TICKLINE_TARGETS` and `TICKLINE_QUORUM`.

TICKLINE_TARGETS='{"east": "10.0.0.1:8001", "west": {"url": "10.1.0.1:8001",
                   "repository": "/mnt/west/serving"}}'
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from model_code.settings.address import GrpcAddress
from model_code.settings.folder import Folder

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class ServingTarget(BaseModel):
    """A Triton server that promotions are for.

    Attributes:
        url: gRPC host:port for clients.
        control: gRPC host:port for loading and verifying; None: `url`.
        repository: folder of the repository it reads, as seen from this machine, if it has a copy
            of its own; None: it reads the serving repository.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: GrpcAddress
    control: GrpcAddress | None = None
    repository: Folder | None = None

    @model_validator(mode="before")
    @classmethod
    def _url_alone(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @property
    def control_url(self) -> str:
        """Where it is loaded and verified."""
        return self.control or self.url

    def absolute(self) -> dict[str, str]:
        """As in the variable, the folder made absolute for a process elsewhere."""
        found = {"url": self.url}
        if self.control is not None:
            found["control"] = self.control
        if self.repository is not None:
            found["repository"] = str(self.repository.resolve())
        return found


Targets = Mapping[str, ServingTarget]


def as_targets(value: Any) -> Any:
    """Read the variable's JSON.

    Raises:
        ValueError: no JSON object, or a name twice.
    """
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value or "{}", object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'not JSON ({error}); write {{"east": "host:8001", "west": "host:8001"}}'
        ) from error
    return found


def check_targets(targets: Targets, quorum: int | None, triton_url: str | None) -> None:
    """Refuse targets that contradict each other or the other settings.

    Raises:
        ValueError: a bad name, an address twice, a quorum that cannot be, or `triton_url` as well.
    """
    if not targets:
        if quorum is not None:
            raise ValueError("a quorum needs targets")
        return
    if triton_url:
        raise ValueError(
            "targets and the address of a single server exclude each other: "
            "make the server one of the targets"
        )
    for name in targets:
        if not NAME.fullmatch(name):
            raise ValueError(f"target {name!r}: a name has lower-case letters, digits, - and _")
    for kind in ("url", "control_url"):
        urls = [getattr(target, kind) for target in targets.values()]
        if len(set(urls)) < len(urls):
            raise ValueError("two targets have the same address")
    if quorum is not None and not 1 <= quorum <= len(targets):
        raise ValueError(f"the quorum is {quorum}, must be 1 to {len(targets)}")


def below_majority(quorum: int, count: int) -> str:
    """What to know of a quorum that is no majority; empty if it is one."""
    if 2 * quorum > count:
        return ""
    return (
        f"the quorum, {quorum} of {count} targets, is no majority: the route may turn to a version "
        "that most targets do not have"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"a name is there twice: {', '.join(names)}")
    return dict(pairs)
