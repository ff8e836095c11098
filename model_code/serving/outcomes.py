"""Outcomes of live requests during a canary: written by the clients, read by its judge.

Each client appends lines to a file of its own in a folder beside the route file. Nothing is written
while the route shares no requests.
"""

import os
import socket
from pathlib import Path

import msgspec

from model_code.errors import IntegrityError
from model_code.repository.route import Target

FOLDER = "outcomes"


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request of a client and what became of it.

    Attributes:
        model, version: target of the request.
        ms: until the answer, or until the client gave up; None after an error.
        agrees: whether the champion decides the same; None: not compared.
        error: why there is no answer; empty if there is one, or if it was late.
    """

    model: str
    version: int
    ms: float | None = None
    agrees: bool | None = None
    error: str = ""

    @property
    def target(self) -> Target:
        """Where the request went."""
        return Target(model=self.model, version=self.version)


class OutcomeWriter:
    """Appends to the file of this process.

    Args:
        route_file: of the serving repository.
    """

    def __init__(self, route_file: Path) -> None:
        self._path = route_file.parent / FOLDER / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        self._lines: list[bytes] = []

    def add(self, outcome: Outcome) -> None:
        """Keep it for `flush`."""
        self._lines.append(msgspec.json.encode(outcome) + b"\n")

    def flush(self) -> None:
        """Append what was kept, in one write.

        Raises:
            OSError: it cannot be written; it is dropped.
        """
        lines, self._lines = self._lines, []
        if lines:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write(b"".join(lines))


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
