"""Emergency rollbacks of a serving repository, and the check that fences off an earlier change.

    <root>-state/emergencies/<number>.json    an emergency rollback: 1, 2, 3, ...
    <root>-state/route.lock                   held for the milliseconds of one write

A promotion or rollback keeps the number of the newest emergency at its beginning, and checks it
before each write, under the lock. An emergency rollback takes the next number under the same lock,
so from then on the earlier change can write nothing, even if its process lives on or was stopped.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from model_code.artifacts import atomic_file
from model_code.errors import IntegrityError, PromotionError

EMERGENCY = "emergency"  # kind of change, as promote and rollback
FOLDER = "emergencies"
LOCK = "route.lock"
WAIT_S = 30.0


class FencedError(PromotionError):
    """An emergency rollback took over: this change must not write any more."""


class RouteHeldError(PromotionError):
    """Another process has held the lock of the route for too long."""


class Emergency(BaseModel):
    """An emergency rollback.

    Attributes:
        number: 1, 2, 3, ...
        at: UTC, ISO 8601.
        by: who.
        reason: why.
        version: that serves afterwards.
        before: version that the route named before; None if none did.
        previous: version that the next rollback goes to; None if there is none.
        interrupted: flow runs of the changes that it took over from.
        state: begun; failed (the version before still serves); serving (MLflow, Prefect and the
            audit file may not know); level (they know).
        behind: of several targets those without the version, each with the reason.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    number: int
    at: str
    by: str
    reason: str
    version: int
    before: int | None
    previous: int | None
    interrupted: tuple[str, ...] = ()
    state: Literal["begun", "failed", "serving", "level"] = "begun"
    behind: dict[str, str] = {}


class Fence:
    """The emergencies of one serving repository.

    Args:
        state: folder of the repository's state.
        epoch: number of the newest emergency when the change began; writes after a newer one are
            refused. None: writes are never refused.
    """

    def __init__(self, state: Path, epoch: int | None = None) -> None:
        self.epoch = epoch
        self._state, self._folder = state, state / FOLDER

    def newest(self) -> int:
        """Number of the newest emergency; 0 before the first."""
        return max(self._numbers(), default=0)

    @property
    def is_current(self) -> bool:
        """Whether no emergency rollback took over."""
        return self.epoch is None or self.newest() <= self.epoch

    def require(self) -> None:
        """Check that no emergency rollback took over.

        Raises:
            FencedError: one did.
        """
        if self.is_current:
            return
        newest = self.newest()
        found = self.read(newest)
        raise FencedError(
            f"an emergency rollback to version {found.version} took over at {found.at[:19]} UTC "
            f"(by {found.by}: {found.reason})",
            where=str(self.file(newest)),
            remedy="this change wrote nothing more, and its approval is void. To promote, first: "
            "tickline reconcile; then: tickline promote --version N",
        )

    @contextmanager
    def writing(self, wait_s: float = WAIT_S) -> Iterator[None]:
        """Hold the lock of the route for one write of the repository.

        Args:
            wait_s: for another process's write, which takes milliseconds.

        Raises:
            FencedError: an emergency rollback took over.
            RouteHeldError: the lock did not become free.
        """
        self._state.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._state / LOCK, timeout=wait_s)
        try:
            lock.acquire()
        except Timeout as error:
            raise RouteHeldError(
                f"another process has held the lock of the route for {wait_s:g} s",
                where=str(self._state / LOCK),
                remedy="find it (fuser -v on that file) and end it, then run the same command",
            ) from error
        try:
            self.require()
            yield
        finally:
            lock.release()

    def begin(
        self,
        version: int,
        before: int | None,
        previous: int | None,
        by: str,
        reason: str,
        interrupted: tuple[str, ...] = (),
        wait_s: float = WAIT_S,
    ) -> Emergency:
        """Begin an emergency: from now on every earlier change is fenced off.

        Raises:
            RouteHeldError: another process holds the lock of the route.
            StorageError: the record cannot be written.
        """
        with Fence(self._state).writing(wait_s):
            found = Emergency(
                number=self.newest() + 1,
                at=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
                by=by,
                reason=reason,
                version=version,
                before=before,
                previous=previous,
                interrupted=interrupted,
            )
            self.save(found)
        return found

    def save(self, emergency: Emergency) -> None:
        """Write an emergency's record.

        Raises:
            StorageError: it cannot be written.
        """
        with atomic_file(self.file(emergency.number)) as path:
            path.write_text(emergency.model_dump_json(indent=2) + "\n")

    def read(self, number: int) -> Emergency:
        """One emergency.

        Raises:
            IntegrityError: its record is malformed.
        """
        path = self.file(number)
        try:
            return Emergency.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise IntegrityError(
                "the record of an emergency rollback is malformed",
                where=str(path),
                remedy="restore the file; its number must stay, so do not delete it",
            ) from error

    def not_level(self) -> tuple[Emergency, ...]:
        """Emergencies that MLflow, Prefect and the audit file may not know, the oldest first.

        One that was killed before its version served counts if it is the newest.

        Raises:
            IntegrityError: a record is malformed.
        """
        found = [self.read(number) for number in sorted(self._numbers())]
        return tuple(
            one
            for one in found
            if one.state == "serving" or (one.state == "begun" and one is found[-1])
        )

    def require_level(self) -> None:
        """Check that no emergency is left to complete or to make known.

        Raises:
            PromotionError: one is.
        """
        open_ones = self.not_level()
        if not open_ones:
            return
        newest = open_ones[-1]
        if newest.state == "begun":
            what, remedy = "was interrupted", complete(newest.version)
        else:
            what = "is not in MLflow, Prefect and the audit file yet"
            remedy = "tickline reconcile, then run the same command"
        raise PromotionError(
            f"an emergency rollback to version {newest.version} {what}",
            where=str(self.file(newest.number)),
            remedy=remedy,
        )

    def file(self, number: int) -> Path:
        """File of an emergency."""
        return self._folder / f"{number}.json"

    def _numbers(self) -> list[int]:
        stems = [path.stem for path in self._folder.glob("*.json")]
        return [int(stem) for stem in stems if stem.isascii() and stem.isdigit()]


def complete(version: int) -> str:
    """The command that completes an interrupted emergency rollback."""
    return f"complete it: tickline rollback --emergency --to {version} --reason TEXT"
