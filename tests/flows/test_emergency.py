"""`tickline rollback --emergency` on a real Triton, with MLflow killed and the lock held."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Running

from flows.promote import promote
from flows.runs import promotions
from infra.exit_with_parent import kill_tree
from infra.servers import HOST, ServerError, free_port, mlflow_command, started
from model_code.errors import PromotionError
from model_code.repository.audit import AuditLog
from model_code.repository.fence import Emergency
from model_code.repository.lease import PromotionRunningError
from model_code.repository.route import Route, Target
from model_code.repository.serving import RepositoryBusyError, ServingRepository
from model_code.settings import MODEL_NAME, Settings
from tasks.promotion.level import level_runs
from tasks.runs.aliases import Aliases, RegistryDownError
from tests.support.cli import plain, tickline
from tests.support.commands import ROOT
from tests.support.desk import approve, champion, events, start
from tests.support.promotion import PATIENT

DEADLINE_S = 240.0
# approve version 2; in mid-swap, between the route and the aliases, the process is stopped
APPROVE = """
import os, signal, sys
from pathlib import Path
from flows.runs import promotions
from model_code.settings import Settings
from tasks.runs.aliases import Aliases

move = Aliases.move

def stop(self, champion, previous):
    Path(sys.argv[1]).touch()
    os.kill(os.getpid(), signal.SIGSTOP)
    move(self, champion, previous)

Aliases.move = stop
promotions._worker_online = lambda: False
promotions.decide(Settings().resolved(), "2", "approve", "ada", "the table is sound")
"""
# neither library may be imported
EMERGENCY = """
import sys
from flows.cli.__main__ import app
try:
    app()
finally:
    print("imported:", sorted({"prefect", "mlflow"} & set(sys.modules)))
"""
NOBODY = f"http://{HOST}:9"


@contextmanager
def approving(
    desk: Settings, tracking: str, swapped: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that promotes version 2 and is stopped in the middle of its swap."""
    away = {"TICKLINE_MLFLOW_TRACKING_URI": tracking, "MLFLOW_TRACKING_URI": tracking}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", APPROVE, str(swapped)],
            cwd=ROOT,
            env=os.environ | away | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not swapped.exists() or psutil.Process(process.pid).status() != "stopped":
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            kill_tree(psutil.Process(process.pid))
        process.wait()


def emergency(*words: str) -> tuple[int, str]:
    """The command where neither Prefect nor MLflow answers."""
    names = [f"{prefix}MLFLOW_TRACKING_URI" for prefix in ("", "TICKLINE_")]
    names += [f"{prefix}PREFECT_API_URL" for prefix in ("", "TICKLINE_")]
    done = subprocess.run(
        [sys.executable, "-c", EMERGENCY, "rollback", "--emergency", *words],
        cwd=ROOT,
        env=os.environ | dict.fromkeys(names, NOBODY) | {"COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return done.returncode, plain(done.stdout)


def test_it_takes_over_from_a_stopped_promotion_whose_mlflow_was_killed(
    desk: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, 1)
    approve(desk, 1)
    fenced = start(desk, 2)
    place, log = ServingRepository(desk.serving_repository), tmp_path / "approve.log"
    port = free_port()
    tracking, health = f"http://{HOST}:{port}", f"http://{HOST}:{port}/health"
    with (
        started("mlflow", mlflow_command(desk, port), health, desk) as server,
        approving(desk, tracking, tmp_path / "swapped", log) as process,
    ):
        kill_tree(psutil.Process(server))
        assert place.route().champion == Target(model=MODEL_NAME, version=2)
        with pytest.raises(RepositoryBusyError, match=rf"is running \(pid {process.pid}\)") as e:
            promotions.roll_back(desk, None, "bob", "wrong answers")
        assert "tickline rollback --emergency" in e.value.remedy
        with pytest.raises(
            PromotionRunningError,
            match=rf"{fenced.name}, the promotion of version 2, is running \(pid {process.pid}\)",
        ):
            promotions.start(desk, 2, "bob", PATIENT)

        code, said = emergency("--reason", "wrong answers", "--by", "bob")
        assert code == 0, said
        assert "version 1 is serving (before: 2)" in said
        assert "version 1 served before the promotion of version 2" in said
        assert "it did not wait: another promotion or rollback is running" in said
        assert str(desk.audit_file) in said
        assert "imported: []" in said
        assert place.route() == Route(champion=Target(model=MODEL_NAME, version=1))
        assert champion(desk) == 1, "the aliases had not moved"

        with pytest.raises(RepositoryBusyError, match="is running") as e:
            promotions.level_emergencies(desk, print)
        assert f"kill -9 {process.pid}" in e.value.remedy
        process.send_signal(signal.SIGCONT)
        assert process.wait(DEADLINE_S) != 0
        assert "an emergency rollback to version 1 took over" in log.read_text()
    assert place.route() == Route(champion=Target(model=MODEL_NAME, version=1)), "not undone"
    assert (place.versions(), place.journal()) == ((1,), None)
    assert champion(desk) == 1
    stop = AuditLog(desk.audit_file).read()[-1]
    assert (stop.event, stop.facts["kind"]) == ("stopped", "FencedError")

    said = tickline("status", status=1)
    assert "emergency rollback to version 1" in said
    assert "is not in MLflow and Prefect yet: tickline reconcile" in said
    for attempt in (
        lambda: promotions.start(desk, 2, "bob", PATIENT),
        lambda: promotions.roll_back(desk, None, "bob", "again"),
    ):
        with pytest.raises(PromotionError, match="is not in MLflow, Prefect and the audit file"):
            attempt()
    with monkeypatch.context() as patch:
        patch.setenv("TICKLINE_MLFLOW_TRACKING_URI", NOBODY)
        with pytest.raises(RegistryDownError):
            promotions.level_emergencies(Settings().resolved(), print)
    Aliases(desk).move(2, 1)  # as a swap leaves it that was killed after it moved the aliases
    said = tickline("reconcile")
    assert "MLflow: alias champion 2 -> 1" in said
    assert "MLflow: alias previous 1 -> none" in said
    assert "MLflow: tags of version 2" in said
    assert "level: version 1 serves" in said
    assert Aliases(desk).aliases() == (1, None)
    assert Aliases(desk).tags(2)["rollback_reason"] == "wrong answers"
    rolled = next(r for r in AuditLog(desk.audit_file).read() if r.event == "rolled back")
    assert Aliases(desk).tags(1)["audit_sha256"] == rolled.sha256
    assert rolled.facts["interrupted"] == [str(fenced.id)]
    assert "MLflow" not in tickline("reconcile"), "nothing is left to do"
    assert "emergency" not in tickline("status", status=1)

    again = promotions.start(desk, 2, "bob", PATIENT)  # not resumed: its approval is void
    assert isinstance(again, FlowRun)
    assert again.id != fenced.id
    assert events(desk).count("rolled back") == 1


def test_an_approval_from_before_an_emergency_is_void(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        start(desk, version)
        approve(desk, version)
    waiting = start(desk, 3)
    code, said = emergency("--to", "2", "--reason", "drill")
    assert (code, "version 2 is serving (before: 2)" in said) == (0, True), said
    promotions.level_emergencies(desk, print)
    with pytest.raises(PromotionError, match="an emergency rollback to version 2 took over"):
        approve(desk, 3)
    assert champion(desk) == 2
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(waiting.id).state
    assert state is not None
    assert state.is_failed()
    code, said = emergency("--reason", " ")
    assert code != 0
    assert "an emergency rollback needs a reason" in said
    code, said = emergency("--reason", "wrong answers")
    assert (code, "version 1 is serving (before: 2)" in said) == (0, True), said


def test_a_normal_rollback_names_it_where_prefect_is_down(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_PREFECT_API_URL", NOBODY)
    with pytest.raises(ServerError, match="Prefect server does not answer") as caught:
        promotions.roll_back(Settings().resolved(), None, "bob", "wrong answers")
    assert "tickline rollback --emergency" in caught.value.remedy


def test_reconcile_cancels_the_run_that_was_taken_over(home: Settings) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(promote, parameters={"version": 2}, state=Running())
    taken = Emergency(
        number=1, at="2026-01-01T00:00:00+00:00", by="ada", reason="r", version=1, before=2,
        previous=None, interrupted=(str(run.id), "00000000-0000-0000-0000-000000000000"),
    )  # fmt: skip
    assert level_runs([taken]) == [f"Prefect: run {run.name} cancelled (was Running)"]
    assert level_runs([taken]) == []
