"""The audit chain: one JSON record per event, each with the hash of the record before it.

    <home>/audit.jsonl            one record a line; with a shared store this home's copy of
    <store>/audit/00000001.json   one object for each record, the same for every host

A changed, removed or inserted record breaks the chain. Records removed at the end cannot be
detected from one file alone, so the newest hash is also a tag of the model version
(`audit_sha256`), and a home refuses a store that lacks a record of its copy.
"""

import json
import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from model_code.artifacts import hash_bytes, storage_error
from model_code.errors import ConfigError, IntegrityError
from model_code.settings import Settings
from model_code.storage.objects import Objects
from model_code.storage.shared import shared_objects

START = "0" * 64
FOLDER = "audit"  # in the shared store
COPY_WAIT_S = 10.0  # the next read adds what was left out


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
    """Append-only; safe between processes; every record is durable before `append` returns.

    With a shared store its objects are the chain, and the file is a copy of its beginning: of
    several writers of one number exactly one succeeds, and the others read on and take the next.

    Args:
        path: of the file.
        wait_s: for another process that appends to the file; -1: until it has.
        shared: the store that the hosts share; None: the file is the chain.
    """

    def __init__(self, path: Path, wait_s: float = -1, shared: Objects | None = None) -> None:
        self.path, self._wait_s, self._shared = path, wait_s, shared

    @classmethod
    def of(cls, settings: Settings, wait_s: float = -1) -> "AuditLog":
        """The chain of an installation: the shared store's, else this home's.

        Args:
            settings: of this home.
            wait_s: for another process that appends, and for the store; -1: as long as it takes.

        Raises:
            ConfigError: the store's address is not one.
        """
        wanted = None if wait_s < 0 else wait_s
        return cls(settings.audit_file, wait_s, shared_objects(settings, wanted))

    def exists(self) -> bool:
        """Whether there is a file, or a record in the shared store.

        Raises:
            SharedStoreError: the store did not answer.
        """
        if self._shared is None:
            return self.path.exists()
        return self._shared.has(_object(1))

    def append(self, event: str, key: str, facts: Mapping[str, Any]) -> AuditRecord:
        """Write one record, or return the existing record with this key.

        Raises:
            IntegrityError: the chain was changed; nothing is appended to a broken chain.
            StorageError: the disk is full, or another process held the file for longer than
                `wait_s`; nothing is left half-written.
            SharedStoreError: the store did not answer; a repeated call writes the record once.
        """
        if self._shared is not None:
            return self._append_shared(self._shared, event, key, facts)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(self._wait_s):
                self._drop_torn_line()
                records = self.read()
                record = _existing(records, key)
                if record is None:
                    record = _following(records, event, key, facts)
                    self._write([record])
                return record
        except OSError as error:
            raise storage_error(error, self.path) from error

    def _append_shared(
        self, shared: Objects, event: str, key: str, facts: Mapping[str, Any]
    ) -> AuditRecord:
        while True:  # whoever is refused has seen another writer succeed
            records = self.read()
            record = _existing(records, key)
            if record is not None:
                return record
            record = _following(records, event, key, facts)
            if shared.create(_object(record.number), record.model_dump_json().encode()):
                self._copy([*records, record])
                return record

    def read(self) -> list[AuditRecord]:
        """All records, oldest first, after verifying the hash chain.

        Of a shared store only the records that this home's copy lacks are fetched.

        Raises:
            IntegrityError: a record was changed, removed or inserted, or is not one; or this home's
                file is not the beginning of the shared store's chain.
            SharedStoreError: the store did not answer.
        """
        records, broken = _verified(enumerate(self._lines(), start=1), str(self.path))
        if broken is None and self._shared is not None:
            newer = self._require_copy(self._shared, records)
            found, broken = self._fetch(self._shared, newer, records)
            if len(found) > len(records):
                self._copy(found)
                records = found
        if broken is not None:
            raise broken
        return records

    def read_until_broken(self) -> tuple[list[AuditRecord], IntegrityError | None]:
        """The records up to the first that breaks the hash chain, and how it does; None: none.

        Of a shared store every record is fetched.

        Raises:
            SharedStoreError: the store did not answer.
        """
        local, broken = _verified(enumerate(self._lines(), start=1), str(self.path))
        if self._shared is None:
            return local, broken
        records, there = self._fetch(self._shared, self._shared.keys(FOLDER), [])
        if there is None and broken is None and records[: len(local)] != local:
            try:
                self._require_copy(self._shared, local)
            except IntegrityError as error:
                there = error
        return records, there or broken

    def share(self) -> int:
        """Copy the records of this home that the shared store lacks, in order; return how many.

        An interrupted call is completed by the next.

        Raises:
            ConfigError: no store is shared.
            IntegrityError: the file is broken, or the store has another chain.
            SharedStoreError: the store did not answer.
        """
        if self._shared is None:
            raise ConfigError(
                "no store is shared, so there is nowhere to copy the audit file",
                where="TICKLINE_STORE is not set",
                remedy="set it: TICKLINE_STORE=s3://BUCKET/PREFIX",
            )
        records, broken = _verified(enumerate(self._lines(), start=1), str(self.path))
        if broken is not None:
            raise broken
        there = len(self._shared.keys(FOLDER))
        self._require_copy(self._shared, records[:there])
        for record in records[there:]:
            if not self._shared.create(_object(record.number), record.model_dump_json().encode()):
                raise self._forked(self._shared, record.number)
        return len(records[there:])

    def _require_copy(self, shared: Objects, records: Sequence[AuditRecord]) -> list[str]:
        """The store's keys after a home's records, which must be the beginning of its chain."""
        if not records:
            return shared.keys(FOLDER)
        last = records[-1]
        text = shared.read(_object(last.number))
        if text is None:
            count = len(shared.keys(FOLDER))
            raise IntegrityError(
                f"this home's audit file has {last.number} records, the shared store {count}",
                where=f"{self.path}; {shared.uri}/{FOLDER}",
                remedy="if the store is new: tickline audit --share copies this home's records "
                "there. If not, find out who deleted them; the same command puts them back",
            )
        if text != last.model_dump_json().encode():
            raise self._forked(shared, last.number)
        return shared.keys(FOLDER, after=_object(last.number))

    def _forked(self, shared: Objects, number: int) -> IntegrityError:
        return IntegrityError(
            f"record {number} of this home's audit file is not the shared store's: "
            "they are two chains",
            where=f"{self.path}; {shared.uri}/{_object(number)}",
            remedy="to continue with the store's chain, move this home's file away and keep it; "
            "versions that it alone records cannot be rolled back to",
        )

    def _fetch(
        self, shared: Objects, keys: Iterable[str], before: Sequence[AuditRecord]
    ) -> tuple[list[AuditRecord], IntegrityError | None]:
        """The records of a home, and after them those of these keys of the store."""
        texts = ((_number(key), shared.read(key) or b"") for key in keys)
        return _verified(texts, f"{shared.uri}/{FOLDER}", before)

    def _copy(self, records: Sequence[AuditRecord]) -> None:
        """Complete this home's copy; what cannot be written now is written by the next read."""
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(COPY_WAIT_S if self._wait_s < 0 else self._wait_s):
                self._drop_torn_line()
                self._write(records[len(self._lines()) :])

    def _locked(self, wait_s: float) -> FileLock:
        return FileLock(self.path.with_suffix(".lock"), timeout=wait_s)

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

    def _write(self, records: Sequence[AuditRecord]) -> None:
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                for record in records:
                    file.write(record.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(self.path, before)
            raise


def _object(number: int) -> str:
    return f"{FOLDER}/{number:08}.json"


def _number(key: str) -> int:
    """The number of a record's key; 0 for another object, which breaks the chain."""
    name = key.rpartition("/")[2].removesuffix(".json")
    return int(name) if name.isascii() and name.isdigit() else 0


def _existing(records: Sequence[AuditRecord], key: str) -> AuditRecord | None:
    return next((record for record in records if record.key == key), None)


def _following(
    records: Sequence[AuditRecord], event: str, key: str, facts: Mapping[str, Any]
) -> AuditRecord:
    fields: dict[str, Any] = {
        "number": len(records) + 1,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "event": event,
        "key": key,
        "facts": dict(facts),
        "previous": records[-1].sha256 if records else START,
    }
    return AuditRecord(**fields, sha256=_digest(fields))


def _verified(
    texts: Iterable[tuple[int, bytes]], where: str, before: Sequence[AuditRecord] = ()
) -> tuple[list[AuditRecord], IntegrityError | None]:
    """The records up to the first that breaks the chain, and how it does.

    Args:
        texts: number and JSON of each record.
        where: of the file or folder.
        before: verified records that precede them.
    """
    records = list(before)
    for number, text in texts:
        try:
            record = AuditRecord.model_validate_json(text)
        except ValidationError:
            return records, _broken(where, number, "is not an audit record")
        previous = records[-1].sha256 if records else START
        if record.previous != previous or {record.number, number} != {len(records) + 1}:
            return records, _broken(where, number, "does not follow the line before it")
        if record.sha256 != _digest(record.model_dump(exclude={"sha256"})):
            return records, _broken(where, number, "was changed after it was written")
        records.append(record)
    return records, None


def _broken(where: str, number: int, what: str) -> IntegrityError:
    return IntegrityError(
        f"the audit file is broken: line {number} {what}",
        where=f"{where}:{number}",
        remedy="keep the file and find out who changed it; MLflow's tags audit_sha256 have the "
        "original hashes. To continue with a new file, move this one away",
    )


def _digest(fields: Mapping[str, Any]) -> str:
    return hash_bytes(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode())
