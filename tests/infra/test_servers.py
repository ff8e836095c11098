import signal
import subprocess
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from infra.process import ProcessId
from infra.servers import (
    HOST,
    PROBE_S,
    ServerError,
    environment,
    free_port,
    free_ports,
    healthy,
    prefect_server,
    record_server,
    remove_server_record,
    running_server,
    started,
)
from model_code.errors import ConfigError, StorageError, TicklineError
from model_code.settings import Settings
from tests.support.disk import small_disk


def web(port: int) -> list[str]:
    return [sys.executable, "-m", "http.server", str(port), "--bind", HOST]


def gone(port: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not healthy(f"http://{HOST}:{port}/"):
            return True
        time.sleep(0.1)
    return False


def test_started_waits_for_health_and_stops_after_the_block(tmp_path: Path) -> None:
    port = free_port()
    with started("web", web(port), f"http://{HOST}:{port}/", Settings(home=tmp_path)):
        assert healthy(f"http://{HOST}:{port}/")
    assert gone(port)


def test_a_server_that_exits_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('port taken')"]
    url = f"http://{HOST}:{free_port()}/"
    with (
        pytest.raises(ServerError, match="exited with status 1:\nport taken"),
        started("web", command, url, Settings(home=tmp_path)),
    ):
        raise AssertionError("it must not get here")


@pytest.mark.parametrize(
    ("log", "error", "what"),
    [
        ("OSError: [Errno 28] No space left on device", StorageError, "disk of its folder is full"),
        ("(sqlite3.OperationalError) database or disk is full", StorageError, "disk of its folder"),
        ("found version ffffffffffff, but expected 0", ConfigError, "of a later MLflow than"),
        ("port taken", ServerError, "exited with status 1:"),
    ],
)
def test_a_server_that_does_not_start_says_the_cause_in_its_log(
    log: str, error: type[TicklineError], what: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", f"import sys; sys.exit({log!r})"]
    url = f"http://{HOST}:{free_port()}/"
    with (
        pytest.raises(error, match=what) as caught,
        started("web", command, url, Settings(home=tmp_path)),
    ):
        raise AssertionError("it must not get here")
    assert str(tmp_path) in caught.value.where
    assert caught.value.remedy


def test_a_disk_that_is_full_when_a_server_starts_is_named(tmp_path: Path) -> None:
    """A server on a full disk cannot even write why it exits."""
    with small_disk(tmp_path, 4) as disk:
        (disk / "logs").mkdir()
        with suppress(OSError), (disk / "fill").open("wb") as fill:
            while True:
                fill.write(bytes(1 << 16))
        command = [sys.executable, "-c", "import sys; sys.exit(1)"]
        with (
            pytest.raises(StorageError) as caught,
            started("web", command, f"http://{HOST}:{free_port()}/", Settings(home=disk)),
        ):
            raise AssertionError("it must not get here")
        assert str(disk) in caught.value.where
        assert "df -h" in caught.value.remedy


def test_a_server_ends_with_its_parent_even_by_sigkill(tmp_path: Path) -> None:
    port = free_port()
    script = (
        "import os, pathlib, signal\n"
        "from infra.servers import started\n"
        "from model_code.settings import Settings\n"
        f"with started('web', {web(port)!r}, 'http://{HOST}:{port}/',"
        f" Settings(home=pathlib.Path({str(tmp_path)!r}))):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert gone(port)


def test_a_configured_server_is_used_or_reported_as_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_url: str
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with prefect_server(Settings(home=tmp_path, prefect_api_url=prefect_url)) as url:
        assert url == prefect_url
    dead = f"http://{HOST}:{free_port()}/api"
    with (
        pytest.raises(ServerError, match="the configured Prefect server does not answer"),
        prefect_server(Settings(home=tmp_path, prefect_api_url=dead)),
    ):
        raise AssertionError("it must not get here")


def test_configured_server_that_is_busy_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(PROBE_S + 0.5)
            with suppress(OSError):  # the client has disconnected
                self.send_response(200)
                self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with ThreadingHTTPServer((HOST, 0), Busy) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            busy = f"http://{HOST}:{server.server_port}/api"
            assert not healthy(f"{busy}/health")
            with prefect_server(Settings(home=tmp_path, prefect_api_url=busy)) as url:
                assert url == busy
        finally:
            server.shutdown()
            thread.join()


def test_ports_requested_together_differ() -> None:
    assert len(set(free_ports(200))) == 200


@pytest.mark.parametrize("record", ["", "{}", "not json", '{"url": "http://127.0.0.1:9/api"}'])
def test_a_stale_or_broken_record_is_not_a_running_server(tmp_path: Path, record: str) -> None:
    (tmp_path / "prefect-server.json").write_text(record)
    assert running_server(Settings(home=tmp_path)) is None


def test_the_record_of_a_dead_owner_is_not_a_running_server(
    tmp_path: Path, prefect_url: str
) -> None:
    record = tmp_path / "prefect-server.json"
    settings = Settings(home=tmp_path)
    record_server(settings, prefect_url)
    assert running_server(settings) == prefect_url
    alive = record.read_text()
    own = ProcessId.own()
    dead = next(pid for pid in range(2**22 - 1, 1, -1) if not psutil.pid_exists(pid))
    record.write_text(alive.replace(f'"pid":{own.pid}', f'"pid":{dead}'))
    assert running_server(settings) is None
    remove_server_record(settings)
    assert record.exists()  # it belongs to another process
    record.write_text(alive.replace(own.birth, "1"))  # another process has its pid
    assert running_server(settings) is None
    record.write_text(alive)
    remove_server_record(settings)
    assert not record.exists()


def test_environment_keeps_everything_under_home_and_telemetry_off(tmp_path: Path) -> None:
    values = environment(Settings(home=tmp_path))
    for name in ("PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH", "MLFLOW_TRACKING_URI"):
        assert str(tmp_path) in values[name]
    assert values["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert values["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert values["PREFECT_SERVER_UI_V2_ENABLED"] == "false"


def test_another_working_directory_changes_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's flows run in the checkout, where they do not read the caller's `.env`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "TICKLINE_STAGING=staged\nTICKLINE_TRITON_URL=far:8001\n"
        "TICKLINE_MLFLOW_TRACKING_URI=http://127.0.0.1:9\nTICKLINE_AUTH_PASSWORD=hush-hush-hush\n"
    )
    mine = Settings().resolved(home=tmp_path / "home")
    found = environment(mine)
    ours = {value for name, value in found.items() if name.startswith("TICKLINE_")}
    assert "hush-hush-hush" not in ours
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    theirs = Settings().resolved()
    assert theirs.staging == tmp_path / "staged"
    for name in ("home", "mlflow_tracking_uri", "market", "triton_url"):
        assert getattr(theirs, name) == getattr(mine, name), name
