"""Outcomes of clients' requests during a canary: written by the clients, read by its judge.

Each client appends lines to a file of its own in a folder beside the route file. Nothing is written
while the route shares no requests. A line that a killed client left incomplete is ignored.
"""

import os
import socket
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from uuid import uuid4

import msgspec

from model_code.errors import IntegrityError
from model_code.repository.route import Target

FOLDER = "outcomes"
MOST_TIMED = 256  # latencies of a target in one write; of more answers only the number is written
LONGEST_REASON = 200


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests of a client to one target and what became of them.

    Attributes:
        model, version: target of the request.
        ms: until the answer, or until the client gave up; None: not known, or an error.
        agrees: whether the champion decides the same; None: not compared.
        error: why there is no answer; empty if there is one, or if it was late.
        champion: what the champion decides; None: not known.
        late: whether the client gave up.
        count: requests with this outcome.
    """

    model: str
    version: int
    ms: float | None = None
    agrees: bool | None = None
    error: str = ""
    champion: bool | None = None
    late: bool = False
    count: int = 1

    @property
    def target(self) -> Target:
        """Where the request went."""
        return Target(model=self.model, version=self.version)


def outcomes_of(
    candidate: Target,
    answered: Target,
    failed: Sequence[tuple[Target, str]],
    late: Collection[Target],
    ms: float,
    *,
    agrees: bool | None = None,
    champion: bool | None = None,
) -> list[Outcome]:
    """What one request during a canary tells of candidate and champion.

    Args:
        candidate: of the route.
        answered: target that answered.
        failed: targets that did not before, each with the reason.
        late: those of them that did not answer in time; they count by their time, not as errors.
        ms: that the request took.
        agrees: whether candidate and champion decide the same; None: not compared.
        champion: what the champion decides; None: not known.
    """
    name, number, found = candidate.model, candidate.version, list[Outcome]()
    for target, reason in failed:
        if target == candidate:
            is_late = target in late
            error = "" if is_late else reason[:LONGEST_REASON]
            found.append(Outcome(name, number, ms if is_late else None, error=error, late=is_late))
    if answered == candidate:
        found.append(Outcome(name, number, ms, agrees, champion=champion))
    elif not failed:
        found.append(Outcome(answered.model, answered.version, ms))
    return found


class OutcomeWriter:
    """Appends to the file of one client.

    Args:
        route_file: of the serving repository.
    """

    def __init__(self, route_file: Path) -> None:
        # a new name for each, so that nothing is appended to an incomplete line
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}.jsonl"
        self._path = route_file.parent / FOLDER / name
        self._lines: list[Outcome] = []
        self._timed: Counter[tuple[str, int]] = Counter()
        self._more: Counter[Outcome] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Keep it for `flush`: errors by their number, answers with their latency up to a limit."""
        key = outcome.model, outcome.version
        if outcome.error or (self._timed[key] >= MOST_TIMED and outcome.agrees is None):
            same = Outcome(*key, error=outcome.error, late=outcome.late)
            self._more[same] += outcome.count
            return
        self._timed[key] += 1
        self._lines.append(outcome)

    def take(self) -> bytes:
        """What was kept, as lines; it is not kept any longer."""
        more = [msgspec.structs.replace(one, count=count) for one, count in self._more.items()]
        lines = [*self._lines, *more]
        self._lines, self._timed, self._more = [], Counter(), Counter()
        return b"".join(msgspec.json.encode(one) + b"\n" for one in lines)

    def write(self, lines: bytes) -> None:
        """Append lines in one write; any thread may.

        Raises:
            OSError: they cannot be written.
        """
        if lines:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write(lines)

    def flush(self) -> None:
        """Append what was kept.

        Raises:
            OSError: it cannot be written; it is dropped.
        """
        self.write(self.take())


class OutcomeReader:
    """Reads what clients append from now on; outcomes of earlier canaries are removed.

    Args:
        route_file: of the serving repository.
    """

    def __init__(self, route_file: Path) -> None:
        self._folder = route_file.parent / FOLDER
        self._read: dict[Path, int] = {}
        for path in self._folder.glob("*.jsonl"):
            path.unlink(missing_ok=True)

    def read(self) -> list[Outcome]:
        """The outcomes since the last call.

        Raises:
            IntegrityError: a line cannot be read.
        """
        found: list[Outcome] = []
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text, end, _ = file.read().rpartition(b"\n")
            self._read[path] = self._read.get(path, 0) + len(text) + len(end)
            for line in text.splitlines():
                try:
                    found.append(msgspec.json.decode(line, type=Outcome))
                except msgspec.DecodeError as error:
                    raise IntegrityError(
                        f"an outcome of live traffic cannot be read: {error}",
                        where=str(path),
                        remedy="run clients and promotion from the same version of the code",
                    ) from error
        return found
