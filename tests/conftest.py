"""Fixtures shared by all tests, and the check that no test is skipped unexpectedly."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings

from infra.proxies import without_loopback
from infra.servers import QUIET, environment, prefect_server
from model_code.settings import Settings

if TYPE_CHECKING:
    from infra.triton.server import TritonServer
    from tests.support.blends import BlendRepository

# before anything imports Prefect or MLflow, which read these once
os.environ.update(QUIET | without_loopback(os.environ))
os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"  # it would outlive the tests' server
for _name in [name for name in os.environ if name.startswith("TICKLINE_")]:
    del os.environ[_name]

# a busy machine is slow, not wrong; and a check must say the same thing each time it is run
hypothesis_settings.register_profile("tickline", deadline=None, derandomize=True)
hypothesis_settings.load_profile("tickline")

# fixtures that start a server
SERVERS = {"prefect_url", "_live_triton", "_second_triton", "triton_home", "postgres"}
KEY = "key-of-the-tests-servers"  # of their model control
EXPECTED_SKIPS = Path(__file__).with_name("expected_skips.txt")
SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server: `make check` leaves it out."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("servers")


_unexpected: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a skip that `expected_skips.txt` does not list."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
        line = f"{report.nodeid} | {reason.removeprefix('Skipped: ')}"
        lines = EXPECTED_SKIPS.read_text().splitlines()
        if not any(fnmatch(line, known) for known in lines if known and not known.startswith("#")):
            _unexpected.append(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """An unexpected skip fails a run in CI."""
    if _unexpected and os.environ.get("CI") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which skips were unexpected, and where expected ones are listed."""
    for line in _unexpected:
        terminalreporter.write_line(f"UNEXPECTED SKIP {line}", red=True)
    if _unexpected:
        terminalreporter.write_line(f"expected ones are listed in {EXPECTED_SKIPS.name}")


@pytest.fixture(scope="session")
def binance() -> str:
    """URI of the real Binance ticks; tests that need them are skipped, by name, without."""
    if not (SHARED / "binance").is_dir():
        pytest.skip("real data: ../shared/data/binance is absent")
    return str(SHARED / "binance")


@pytest.fixture(scope="session")
def binance_frames() -> str:
    """URI of the recorded Binance frames; tests that need them are skipped, by name, without."""
    if not (SHARED / "binance-frames").is_dir():
        pytest.skip("real data: ../shared/data/binance-frames is absent")
    return str(SHARED / "binance-frames")


@pytest.fixture(scope="session")
def fx() -> str:
    """URI of the real FX ticks; tests that need them are skipped, by name, without."""
    if not (SHARED / "fx").is_dir():
        pytest.skip("real data: ../shared/data/fx is absent")
    return str(SHARED / "fx")


@pytest.fixture(scope="session")
def triton_home() -> Path:
    """Where the Triton server is installed; done once for all sessions of this machine."""
    from infra.triton.install import install

    install(Settings())
    return Settings().triton_home


@pytest.fixture(scope="session")
def blend_repository(tmp_path_factory: pytest.TempPathFactory) -> "BlendRepository":
    """A blend as an ensemble and as the single graph; exported once, to be read only."""
    from tests.support.blends import BlendRepository

    return BlendRepository.make(tmp_path_factory.mktemp("blend"))


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """API URL of one real Prefect server for the whole session."""
    settings = Settings(home=tmp_path_factory.mktemp("prefect"))
    os.environ |= {"PREFECT_HOME": environment(settings)["PREFECT_HOME"]}
    with prefect_server(settings) as url:
        yield url


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, migrated once: copying it saves the seconds of a migration."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def home(
    tmp_path: Path, prefect_url: str, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings of an empty home folder whose flows use the session's Prefect server."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_LOGGING_LEVEL,
        temporary_settings,
    )

    settings = Settings(home=tmp_path / "home", prefect_api_url=prefect_url).resolved()
    settings.home.mkdir()
    shutil.copyfile(mlflow_template, settings.home / "mlflow.db")
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TICKLINE_PREFECT_API_URL", prefect_url)
    changes = {
        PREFECT_API_URL: prefect_url,
        PREFECT_LOCAL_STORAGE_PATH: settings.home / "results",
        PREFECT_LOGGING_LEVEL: "WARNING",
    }
    with temporary_settings(changes):
        yield settings


@pytest.fixture
def pools_know_the_server(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that sets PREFECT_API_URL before it imports Prefect.

    A process pool's own thread does not see `temporary_settings` and would start a server.
    """
    from prefect import context

    monkeypatch.setattr(context, "GLOBAL_SETTINGS_CONTEXT", context.SettingsContext.get())


@pytest.fixture(scope="session")
def _live_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator["TritonServer"]:
    from infra.triton.server import running

    settings = Settings(home=tmp_path_factory.mktemp("triton"), triton_key=KEY).resolved()
    with running(settings, settings.serving_repository) as server:
        yield server


@pytest.fixture(scope="session")
def _second_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator["TritonServer"]:
    from infra.triton.server import running

    settings = Settings(home=tmp_path_factory.mktemp("triton"), triton_key=KEY).resolved()
    with running(settings, settings.serving_repository) as server:
        yield server


@pytest.fixture
def live_triton(_live_triton: "TritonServer") -> Iterator["TritonServer"]:
    """The session's real Triton server, with an empty repository of its own."""
    with _emptied(_live_triton):
        yield _live_triton


@pytest.fixture
def second_triton(_second_triton: "TritonServer") -> Iterator["TritonServer"]:
    """Another one, as of a second data centre, with an empty repository of its own."""
    with _emptied(_second_triton):
        yield _second_triton


@contextmanager
def _emptied(server: "TritonServer") -> Iterator[None]:
    """Empty the repository before, and unload every model afterwards."""
    root = server.repository
    for folder in (root, root.with_name(f"{root.name}-state")):
        shutil.rmtree(folder, ignore_errors=True)
    root.mkdir()
    yield
    from model_code.serving.candidate import CANDIDATE_NAME
    from model_code.serving.swap import BRIDGE_NAMES

    with server.client() as client:
        hidden = {CANDIDATE_NAME, *BRIDGE_NAMES}  # which the index does not list
        for model in {entry.model for entry in client.index()} | hidden:
            if client.ready(model):
                client.unload(model)
