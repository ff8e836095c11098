import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_code.errors import ConfigError, IntegrityError, StorageError
from model_code.repository.audit import FOLDER, START, AuditLog
from model_code.settings import Settings
from model_code.storage.objects import Objects
from tests.support.s3 import s3_bucket


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


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("audit") as uri:
        yield uri


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> str:
    return (
        f"file://{tmp_path / 'store'}" if request.param == "file" else f"{bucket}/{tmp_path.name}"
    )


def shared(home: Path, store: str) -> AuditLog:
    """The chain as a host sees it whose home is this folder."""
    return AuditLog(home / "audit.jsonl", shared=Objects(store))


def _append_all(home: Path, store: str, writer: int) -> None:
    for number in range(5):
        shared(home, store).append("promoted", f"{writer}-{number}", {"version": number})
        shared(home, store).append("stopped", f"of all {number}", {"version": number})


def test_hosts_that_append_at_once_make_one_chain(tmp_path: Path, store: str) -> None:
    context = multiprocessing.get_context("spawn")
    homes = [tmp_path / "one", tmp_path / "one", tmp_path / "two"]
    workers = [
        context.Process(target=_append_all, args=(home, store, number))
        for number, home in enumerate(homes)
    ]
    for worker in workers:
        worker.start()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: _append_all(tmp_path / "three", store, number), (10, 11, 12)))
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    records, broken = shared(tmp_path / "new", store).read_until_broken()
    assert broken is None
    wanted = {f"{writer}-{n}" for writer in (0, 1, 2, 10, 11, 12) for n in range(5)}
    wanted |= {f"of all {n}" for n in range(5)}
    assert sorted(record.key for record in records) == sorted(wanted), "each key once"
    for home in (*homes, tmp_path / "three", tmp_path / "new"):
        assert shared(home, store).read() == records
        assert AuditLog(home / "audit.jsonl").read() == records, "the home's copy"


def test_a_home_fetches_only_what_its_copy_lacks(tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    for number in range(3):
        shared(tmp_path / "one", store).append("promoted", str(number), {"version": number})
    assert len(shared(tmp_path / "two", store).read()) == 3
    (tmp_path / "store" / FOLDER / "00000001.json").write_text("changed")
    assert len(shared(tmp_path / "two", store).read()) == 3
    _, broken = shared(tmp_path / "two", store).read_until_broken()
    assert broken is not None
    assert "line 1 is not an audit record" in broken.what
    with pytest.raises(IntegrityError, match="line 1"):
        shared(tmp_path / "new", store).read()


def test_an_object_that_is_missing_breaks_the_chain(tmp_path: Path, store: str) -> None:
    for number in range(3):
        shared(tmp_path / "one", store).append("promoted", str(number), {"version": number})
    Objects(store).delete(f"{FOLDER}/00000002.json")
    with pytest.raises(IntegrityError, match="line 3 does not follow"):
        shared(tmp_path / "new", store).append("promoted", "4", {})


def test_a_home_refuses_a_store_that_lacks_its_records(log: AuditLog, store: str) -> None:
    records, here = log.read(), AuditLog(log.path, shared=Objects(store))
    with pytest.raises(IntegrityError, match="has 3 records, the shared store 0"):
        here.read()
    with pytest.raises(IntegrityError, match="has 3 records"):
        here.append("promoted", "key-4", {})
    assert (here.share(), here.share()) == (3, 0)
    assert here.append("promoted", "key-4", {}).number == 4
    assert here.read()[:3] == records
    Objects(store).delete(f"{FOLDER}/00000004.json")
    with pytest.raises(IntegrityError, match="has 4 records, the shared store 3"):
        here.read()
    _, broken = here.read_until_broken()
    assert broken is not None
    assert here.share() == 1


def test_two_chains_are_refused(log: AuditLog, store: str, tmp_path: Path) -> None:
    shared(tmp_path / "other", store).append("promoted", "other", {"version": 9})
    here = AuditLog(log.path, shared=Objects(store))
    for call in (here.share, lambda: here.append("promoted", "key-4", {})):
        with pytest.raises(IntegrityError):
            call()
    assert len(shared(tmp_path / "new", store).read()) == 1
    assert len(log.read()) == 3
    shared(tmp_path / "other", store).append("promoted", "two", {})
    shared(tmp_path / "other", store).append("promoted", "three", {})
    with pytest.raises(IntegrityError, match="they are two chains"):
        here.read()


def test_sharing_needs_a_store(log: AuditLog) -> None:
    with pytest.raises(ConfigError, match="no store is shared"):
        log.share()


def test_the_settings_name_the_chain(tmp_path: Path) -> None:
    alone = Settings(home=tmp_path / "a").resolved()
    assert not AuditLog.of(alone).exists()
    AuditLog.of(alone).append("promoted", "one", {})
    assert AuditLog(alone.audit_file).exists()
    one = Settings(home=tmp_path / "b", store=f"file://{tmp_path / 'store'}").resolved()
    AuditLog.of(one).append("promoted", "two", {})
    two = one.resolved(home=tmp_path / "c")
    assert [record.key for record in AuditLog.of(two).read()] == ["two"]
    assert AuditLog.of(two).exists()
