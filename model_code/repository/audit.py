"""The audit file: one JSON line per event, each with the hash of the line before it.

A changed, removed or inserted line breaks the chain. Lines removed at the end cannot be detected
from the file alone, so the newest hash is also a tag of the model version (`audit_sha256`).
"""

import json
import os
import pwd
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from model_code.artifacts import hash_bytes, storage_error
from model_code.errors import IntegrityError

START = "0" * 64


def account() -> str:
    """The account of this process, used as the actor if none is given; no variable changes it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's or service's uid without an entry
        return f"uid {os.getuid()}"


class AuditRecord(BaseModel):
    """One event.

    Attributes:
        number: 1, 2, 3, ...
        at: UTC, ISO 8601.
        event: what happened: started, approved, rejected, promoted, rolled back, ...
        key: identifies the event; a repeated key is written once.
        facts: who, which version, why, hashes.
        previous: `sha256` of the record before.
        sha256: of this record's other fields as canonical JSON.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    number: int
    at: str
    event: str
    key: str
    facts: dict[str, JsonValue]
    previous: str
    sha256: str


class AuditLog:
    """Append-only; safe between processes; every record is on disk before `append` returns.

    Args:
        path: of the file.
        wait_s: for another process that appends; -1: until it has.
    """

    def __init__(self, path: Path, wait_s: float = -1) -> None:
        self.path, self._wait_s = path, wait_s

    def append(self, event: str, key: str, facts: Mapping[str, Any]) -> AuditRecord:
        """Write one record, or return the existing record with this key.

        Raises:
            IntegrityError: the file was changed; nothing is appended to a broken chain.
            StorageError: the disk is full, or another process held the file for longer than
                `wait_s`; nothing is left half-written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock"), timeout=self._wait_s):
                self._drop_torn_line()
                records = self.read()
                for record in records:
                    if record.key == key:
                        return record
                fields: dict[str, Any] = {
                    "number": len(records) + 1,
                    "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "event": event,
                    "key": key,
                    "facts": dict(facts),
                    "previous": records[-1].sha256 if records else START,
                }
                record = AuditRecord(**fields, sha256=_digest(fields))
                self._write(record.model_dump_json().encode() + b"\n")
                return record
        except OSError as error:
            raise storage_error(error, self.path) from error

    def read(self) -> list[AuditRecord]:
        """All records, oldest first, after verifying the hash chain.

        Raises:
            IntegrityError: a line was changed, removed or inserted, or is not a record.
        """
        records, broken = self.read_until_broken()
        if broken is not None:
            raise broken
        return records

    def read_until_broken(self) -> tuple[list[AuditRecord], IntegrityError | None]:
        """The records up to the first that breaks the hash chain, and how it does; None: none."""
        records: list[AuditRecord] = []
        previous = START
        for number, line in enumerate(self._lines(), start=1):
            try:
                record = AuditRecord.model_validate_json(line)
            except ValidationError:
                return records, self._broken(number, "is not an audit record")
            if record.previous != previous or record.number != number:
                return records, self._broken(number, "does not follow the line before it")
            if record.sha256 != _digest(record.model_dump(exclude={"sha256"})):
                return records, self._broken(number, "was changed after it was written")
            previous = record.sha256
            records.append(record)
        return records, None

    def _lines(self) -> list[bytes]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return content[: content.rfind(b"\n") + 1].splitlines()  # without a torn last line

    def _drop_torn_line(self) -> None:
        """Remove a partial last line: a power failure interrupted it before it was acknowledged."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)

    def _write(self, line: bytes) -> None:
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(self.path, before)
            raise

    def _broken(self, number: int, what: str) -> IntegrityError:
        return IntegrityError(
            f"the audit file is broken: line {number} {what}",
            where=f"{self.path}:{number}",
            remedy="keep the file and find out who changed it; MLflow's tags audit_sha256 have the "
            "original hashes. To continue with a new file, move this one away",
        )


def _digest(fields: Mapping[str, Any]) -> str:
    return hash_bytes(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode())
