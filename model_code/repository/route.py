"""The route file: which model version clients use, updated by one atomic rename.

Triton does not route between versions. The file names the champion and, during a canary, the
candidate and its share of the requests. Clients check it every few milliseconds, so a swap is one
rename.
"""

import os
import threading
import time
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from model_code.artifacts import atomic_file
from model_code.errors import IntegrityError, PromotionError
from model_code.settings import Fraction

_GOLDEN_RATIO = 0.6180339887498949


class Target(BaseModel):
    """A model name and version of a Triton server."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    model: str
    version: int


class Route(BaseModel):
    """Where requests go.

    Attributes:
        champion: target of the requests; None before the first promotion.
        candidate: target of the share; None without a canary.
        share: of the requests, 0 to 1.
        until: seconds since the epoch after which the candidate gets no requests, so that a canary
            ends automatically if its watcher is killed; None: no end.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    champion: Target | None = None
    candidate: Target | None = None
    share: Fraction = 0.0
    until: float | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; a missing file is an empty route.

        Raises:
            IntegrityError: the file is malformed.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except ValidationError as error:
            raise IntegrityError(
                "the route file is malformed",
                where=str(path),
                remedy="rewrite it: tickline rollback --to the version that should serve",
            ) from error

    def save(self, path: Path) -> None:
        """Write the file by one rename."""
        with atomic_file(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2, exclude_none=True) + "\n")

    def shared(self) -> bool:
        """Whether a canary is active and its share has not expired."""
        return self.candidate is not None and (self.until is None or time.time() < self.until)


class Router:
    """Picks the target of each request; thread-safe.

    Args:
        path: of the route file.
        refresh_s: maximum age of the cached route, in seconds.
    """

    def __init__(self, path: Path, refresh_s: float = 0.02) -> None:
        self._path, self._refresh_s = path, refresh_s
        self._lock = threading.Lock()
        self._count = 0
        self._checked, self._stamp = float("-inf"), (0, 0)
        self._route = Route()

    def route(self, *, now: bool = False) -> Route:
        """The current route; `now` reads the file regardless of the cached route's age."""
        with self._lock:
            clock = time.monotonic()
            if now or clock - self._checked >= self._refresh_s:
                self._checked = clock
                stamp = _stamp(self._path)
                if stamp != self._stamp or now:
                    self._route, self._stamp = Route.load(self._path), stamp
            return self._route

    def pick(self, *, now: bool = False) -> Target:
        """Target of the next request: the candidate for its share, evenly spread.

        Raises:
            PromotionError: nothing was ever promoted.
        """
        route = self.route(now=now)
        if route.champion is None and route.candidate is None:
            raise PromotionError(
                "no version serves yet", where=str(self._path), remedy="tickline promote"
            )
        with self._lock:
            self._count += 1
            # multiples of the golden ratio fill 0..1 evenly, so any run of requests has its share
            drawn = self._count * _GOLDEN_RATIO % 1.0
        if route.champion is None or (drawn < route.share and route.shared()):
            assert route.candidate is not None  # noqa: S101
            return route.candidate
        return route.champion


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return (0, 0)
    return (found.st_ino, found.st_mtime_ns)
