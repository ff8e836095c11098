"""Emergency rollback from local files and Triton alone, on played servers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from model_code.errors import IntegrityError, PromotionError, ServingError
from model_code.repository.audit import AuditLog
from model_code.repository.fence import EMERGENCY, FencedError
from model_code.repository.lease import owned
from model_code.repository.manifest import Manifest
from model_code.repository.route import Route, Target
from model_code.repository.serving import Journal, ServingRepository
from model_code.serving.candidate import CANDIDATE_NAME
from model_code.serving.servers import Servers
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, Settings
from tasks.promotion import emergency
from tasks.promotion.emergency import choose, emergency_rollback
from tests.support.s3 import s3_environment
from tests.support.serving import weights
from tests.support.targets import TwoTargets

ONE, TWO = (Route(champion=Target(model=MODEL_NAME, version=one)) for one in (1, 2))


def approved(desk: TwoTargets, version: int) -> None:
    """Write the approval of a published version to the audit file."""
    manifest = Manifest.load(desk.place.folder(version))
    approval = manifest.approval.model_dump() if manifest.approval else {}
    facts = {name: value for name, value in approval.items() if value}
    facts |= {"version": version, "manifest": manifest.identity}
    facts |= {name: getattr(manifest, name) for name in ("engine_sha256", "config_sha256")}
    log = AuditLog(desk.place.root.parent / "audit.jsonl")
    log.append("approved", f"decided-{version}", facts)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TwoTargets:
    """Version 2 serves on two targets, version 1 served before it."""
    found = TwoTargets(tmp_path)
    assert found.change("promote", 2, 1) == {}
    log = AuditLog(tmp_path / "audit.jsonl")
    for version, previous in ((1, None), (2, 1)):
        approved(found, version)
        log.append("promoted", f"promoted-{version}", {"version": version, "previous": previous})

    @contextmanager
    def servers(*_: Any) -> Iterator[Servers]:
        yield found.servers()

    monkeypatch.setattr(emergency, "serving_servers", servers)
    return found


def settings(desk: TwoTargets) -> Settings:
    home = desk.place.root.parent
    targets = {"east": "east:1", "west": "west:1"}
    made: dict[str, Any] = {
        "home": home,
        "serving": desk.place.root,
        "audit": home / "audit.jsonl",
        "targets": targets,
    }
    return Settings(**made).resolved()


def go(desk: TwoTargets, to: int | None = None) -> emergency.EmergencyDone:
    return emergency_rollback(settings(desk), to, "ada", "wrong answers")


def test_the_version_before_serves_and_the_audit_file_says_why(desk: TwoTargets) -> None:
    done = go(desk)
    assert (done.emergency.version, done.emergency.before) == (1, 2)
    assert (done.emergency.state, done.emergency.previous) == ("serving", None)
    assert desk.place.route() == ONE
    assert desk.copy.route() == ONE
    assert desk.east.versions() == desk.west.versions() == [1], "nothing above the champion"
    assert desk.place.journal() is None
    record = AuditLog(settings(desk).audit_file).read()[-1]
    assert record.event == "rolled back"
    assert (record.facts["version"], record.facts["from"]) == (1, 2)
    assert (record.facts["by"], record.facts["reason"]) == ("ada", "wrong answers")
    assert done.record == settings(desk).audit_file
    assert desk.names.champion == 2, "the registry was not asked"
    assert any("served before version 2, by the audit file" in note for note in done.notes)


def test_of_several_targets_one_is_enough(desk: TwoTargets) -> None:
    desk.west.away = True
    done = go(desk)
    assert desk.place.route() == ONE
    assert set(done.emergency.behind) == {"west"}
    desk.east.away = True
    with pytest.raises(PromotionError, match="0 of 2 targets are ready"):
        go(desk, 2)
    assert desk.place.fence.newest() == 1, "without a server nothing is fenced off"


def test_a_running_canary_is_stopped_and_cannot_go_on(desk: TwoTargets) -> None:
    candidate = Target(model=CANDIDATE_NAME, version=3)
    share = TWO.model_copy(update={"candidate": candidate, "share": 0.5, "until": time.time() + 60})
    promotion = ServingRepository(desk.place.root, desk.place.fence.newest())
    promotion.turn(share)
    with owned(desk.place.state, 3, "brave-fox", "run-3"), desk.place.exclusive():
        done = in_thread(desk)
    assert desk.place.route() == TWO, "the champion, without the candidate"
    assert done.emergency.version == 2
    assert done.emergency.interrupted == ("run-3",)
    assert any("canary of version 3 was stopped" in note for note in done.notes)
    assert any("it did not wait: another promotion" in note for note in done.notes)
    with pytest.raises(FencedError):
        promotion.turn(share)
    assert desk.place.route() == TWO


def in_thread(desk: TwoTargets) -> emergency.EmergencyDone:
    """As another process would: a lock of this thread is not its own."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(go, desk).result()


def test_a_swap_that_was_taken_over_neither_goes_on_nor_is_undone(desk: TwoTargets) -> None:
    """The registry hangs in mid-swap; the emergency comes; then the registry fails."""
    desk.publish(3)
    place = ServingRepository(desk.place.root, desk.place.fence.newest())
    seen = []

    class Hangs:
        def aliases(self) -> tuple[int | None, int | None]:
            return 2, 1

        def move(self, *_: int | None) -> None:
            seen.append(place.route().champion)
            done = go(desk)
            assert done.emergency.version == 2, "what served before the swap"
            assert done.emergency.interrupted == ("flow-3",)
            raise ConnectionError("the registry is gone")

    with pytest.raises(FencedError, match="took over"):
        Swap(place, desk.servers(), Hangs()).run("promote", 3, 2, "flow-3")
    assert seen == [Target(model=MODEL_NAME, version=3)], "clients had the new version"
    assert desk.place.route() == TWO
    assert desk.place.journal() is None
    assert desk.east.versions() == [2]


def test_an_interrupted_emergency_is_only_completed(
    desk: TwoTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(ServingRepository, "close_journal", die)
        with pytest.raises(KilledError):
            go(desk)
    journal = desk.place.journal()
    assert journal is not None
    assert journal.kind == EMERGENCY
    with pytest.raises(PromotionError, match="emergency rollback to version 1 was interrupted"):
        desk.change("promote", 2, 1)
    assert desk.place.route() == ONE, "the bad version was not brought back"
    done = go(desk)
    assert done.emergency.version == 1
    assert desk.place.journal() is None
    assert [one.number for one in desk.place.fence.not_level()] == [2]


def test_a_version_that_answers_wrongly_gets_no_request(desk: TwoTargets) -> None:
    desk.publish(3, expected=weights(7, noise=1.0))
    with pytest.raises(PromotionError, match="approval of version 3 is not in the audit file"):
        go(desk, 3)
    approved(desk, 3)
    with pytest.raises(PromotionError, match="version 3 cannot serve, version 2 keeps") as caught:
        go(desk, 3)
    assert "known: 1, 2" in caught.value.remedy
    assert desk.place.route() == TWO
    assert desk.place.journal() is None
    assert desk.place.fence.not_level() == ()
    assert desk.place.fence.read(1).state == "failed"
    assert go(desk).emergency.version == 1


def test_changed_bytes_and_unknown_versions_are_refused(desk: TwoTargets) -> None:
    with pytest.raises(PromotionError, match="version 9 was never promoted"):
        go(desk, 9)
    graph = desk.place.folder(1) / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"?")
    with pytest.raises(IntegrityError, match="expected sha256"):
        go(desk)
    assert desk.place.route() == TWO
    assert desk.place.fence.newest() == 0


def test_an_audit_file_that_cannot_be_written_leaves_a_local_record(
    desk: TwoTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emergency, "WAIT_S", 0.1)
    audit = settings(desk).audit_file
    before = len(AuditLog(audit).read())
    with FileLock(audit.with_suffix(".lock")):
        done = in_thread(desk)
    assert done.record == desk.place.fence.file(1)
    assert done.record.exists()
    assert any("audit file could not be written" in note for note in done.notes)
    assert len(AuditLog(audit).read()) == before
    emergency.record_emergency(settings(desk), done.emergency)
    emergency.record_emergency(settings(desk), done.emergency)
    assert [one.event for one in AuditLog(audit).read()][before:] == ["rolled back"], "once"


def test_without_an_answer_of_the_shared_store_it_uses_this_home_s_copy(
    desk: TwoTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emergency, "WAIT_S", 1.0)
    local = settings(desk)
    known = AuditLog(local.audit_file).read()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts and never answers
        port = silent.getsockname()[1]
        for name, value in s3_environment(f"http://127.0.0.1:{port}").items():
            monkeypatch.setenv(name, value)
        began = time.monotonic()
        done = emergency_rollback(local.resolved(store="s3://away"), None, "ada", "wrong answers")
        assert time.monotonic() - began < 10
    assert desk.place.route() == ONE
    assert any("store refused or did not answer" in note for note in done.notes)
    assert done.record == desk.place.fence.file(1)
    assert AuditLog(local.audit_file).read() == known
    shared = local.resolved(store=f"file://{local.home / 'store'}")
    AuditLog.of(shared).share()
    emergency.record_emergency(shared, done.emergency)
    events = [one.event for one in AuditLog.of(shared).read()][len(known) :]
    assert events == ["rolled back"]


def test_malformed_files_do_not_stop_it(desk: TwoTargets) -> None:
    desk.place.route_file.write_text("half of")
    desk.place.journal_file.write_text("half of")
    done = go(desk)
    assert (done.emergency.version, done.emergency.before) == (1, 2)
    assert desk.place.route() == ONE
    assert sum("malformed" in note for note in done.notes) == 2


def test_a_broken_audit_file_proves_no_approval(desk: TwoTargets) -> None:
    audit = settings(desk).audit_file
    audit.write_text(audit.read_text().replace('"previous":1', '"previous":7'))
    with pytest.raises(PromotionError, match="no version before 2 is known") as caught:
        go(desk)
    assert "--to N; known: 1, 2" in caught.value.remedy
    with pytest.raises(IntegrityError, match="audit file is broken"):
        go(desk, 1)
    assert desk.place.route() == TWO
    candidate = Target(model=CANDIDATE_NAME, version=3)
    desk.place.turn(
        TWO.model_copy(update={"candidate": candidate, "share": 0.5, "until": time.time() + 60})
    )
    done = go(desk)  # what serves needs no new proof: its canary is stopped all the same
    assert desk.place.route() == TWO
    assert any("audit file is broken" in note for note in done.notes)
    assert done.record == desk.place.fence.file(1)


def test_without_a_server_it_says_so(desk: TwoTargets, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.east.away = True

    @contextmanager
    def servers(*_: Any) -> Iterator[Servers]:
        yield Servers(desk.servers().all[:1])

    monkeypatch.setattr(emergency, "serving_servers", servers)
    with pytest.raises(ServingError, match="the Triton server does not answer"):
        go(desk)
    assert desk.place.route() == TWO


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system lists no locks")
def test_a_stopped_process_that_keeps_the_route_is_killed(
    desk: TwoTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emergency, "WAIT_S", 0.2)
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from model_code.repository.serving import ServingRepository\n"
        "with ServingRepository(Path(sys.argv[1])).fence.writing():\n"
        "    print('held', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(desk.place.root)],
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            done = go(desk)
            assert holder.wait(60) == -signal.SIGKILL
        finally:
            holder.kill()
    assert desk.place.route() == ONE
    assert any(f"process {holder.pid} kept the lock" in note for note in done.notes)


def test_what_it_chooses_without_a_version(desk: TwoTargets) -> None:
    records = AuditLog(settings(desk).audit_file).read()
    known, bare = (1, 2, 3), ServingRepository(Path("/nowhere"))
    three = Route(champion=Target(model=MODEL_NAME, version=3))

    def journal(kind: str, version: int, route: Route) -> Journal:
        return Journal(
            kind=kind, version=version, route=route, versions=(), champion=2, previous=1,
            flow_run_id="f",
        )  # fmt: skip

    def chosen(route: Route, change: Journal | None = None) -> int:
        return choose(known, route, change, records, None).version

    assert chosen(TWO) == 1, "by the audit file"
    assert chosen(three) == 2, "promoted and killed before its record"
    assert chosen(three, journal("promote", 3, TWO)) == 2, "the swap had turned the route"
    assert chosen(TWO, journal("promote", 3, TWO)) == 2, "the swap had not"
    assert chosen(TWO, journal("rollback", 1, TWO)) == 1
    assert chosen(ONE, journal(EMERGENCY, 1, TWO)) == 1
    candidate = Target(model=CANDIDATE_NAME, version=3)
    old = TWO.model_copy(update={"candidate": candidate, "share": 0.5, "until": 1.0})
    assert chosen(old) == 1, "its canary has ended"
    with pytest.raises(PromotionError, match="no version before 1 is known"):
        chosen(ONE)
    with pytest.raises(PromotionError, match="no version serves yet"):
        chosen(bare.route())


def test_neither_prefect_nor_mlflow_is_imported() -> None:
    code = (
        "import sys\nimport tasks.promotion.emergency\n"
        "print([name for name in ('prefect', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
