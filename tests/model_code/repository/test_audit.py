import json
import multiprocessing
from pathlib import Path

import pytest

from model_code.errors import IntegrityError, StorageError
from model_code.repository.audit import START, AuditLog


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in (1, 2, 3):
        log.append("promoted", f"key-{number}", {"version": number, "reason": "für gut befunden"})
    return log


def test_records_follow_each_other_and_survive_reading(log: AuditLog) -> None:
    records = log.read()
    assert [record.number for record in records] == [1, 2, 3]
    assert [record.previous for record in records] == [START, *(r.sha256 for r in records[:2])]
    assert records[2].facts == {"version": 3, "reason": "für gut befunden"}


def test_a_key_is_written_once(log: AuditLog) -> None:
    again = log.append("promoted", "key-2", {"version": 99})
    assert again == log.read()[1]
    assert len(log.read()) == 3


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [lines[0].replace('"version":1', '"version":7'), *lines[1:]], 1),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
        (lambda lines: [lines[1], lines[0], lines[2]], 1),
        (lambda lines: [*lines[:2], "{}"], 3),
    ],
)
def test_any_change_is_detected_and_nothing_is_appended(log: AuditLog, change, line: int) -> None:
    lines = log.path.read_text().splitlines()
    log.path.write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(IntegrityError, match=f"line {line}"):
        log.read()
    before = log.path.read_bytes()
    with pytest.raises(IntegrityError):
        log.append("promoted", "key-4", {})
    assert log.path.read_bytes() == before


def test_a_forged_hash_is_detected_by_the_next_record(log: AuditLog) -> None:
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    lines[1]["facts"]["version"] = 7
    lines[1]["sha256"] = "0" * 64
    log.path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    with pytest.raises(IntegrityError, match="line 2 was changed"):
        log.read()


def test_a_line_torn_by_a_power_failure_is_not_a_record(log: AuditLog) -> None:
    with log.path.open("a") as file:
        file.write('{"number": 4, "at": "2024')
    assert len(log.read()) == 3
    log.append("promoted", "key-4", {"version": 4})
    assert [record.number for record in log.read()] == [1, 2, 3, 4]


def test_a_full_disk_leaves_the_file_unchanged(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = log.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        log.append("promoted", "key-4", {})
    assert log.path.read_bytes() == before


def _append(path: Path, start: int) -> None:
    for number in range(start, start + 10):
        AuditLog(path).append("promoted", f"process-{number}", {"version": number})


def test_processes_append_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    records = AuditLog(path).read()
    assert len({record.key for record in records}) == len(records) == 20
