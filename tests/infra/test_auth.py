"""Basic authentication, required by real servers."""

import sys
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from infra.auth import client_environment, mlflow_options, server_environment
from infra.servers import HOST, environment, free_port, prefect_server, started
from model_code.settings import Settings

PASSWORD = "correct horse battery"  # noqa: S105


def guarded(home: Path) -> Settings:
    return Settings(home=home, auth_username="desk", auth_password=SecretStr(PASSWORD)).resolved()


def test_without_a_password_no_authentication_is_required(tmp_path: Path) -> None:
    open_house = Settings(home=tmp_path)
    assert client_environment(open_house) == {}
    assert server_environment(open_house) == {}
    assert mlflow_options(open_house) == []


def test_the_password_comes_from_the_environment_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_AUTH_PASSWORD", PASSWORD)
    settings = Settings(home=tmp_path).resolved()
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in settings.model_dump_json()
    assert environment(settings)["PREFECT_API_AUTH_STRING"] == f"admin:{PASSWORD}"
    server_environment(settings)
    assert PASSWORD not in (tmp_path / "mlflow-auth.ini").read_text()


def test_prefect_requires_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with prefect_server(guarded(tmp_path)) as url:
        assert httpx.get(f"{url}/admin/version").status_code == 401
        wrong = httpx.get(f"{url}/admin/version", auth=("desk", "wrong"))
        right = httpx.get(f"{url}/admin/version", auth=("desk", PASSWORD))
    assert (wrong.status_code, right.status_code) == (401, 200)
    assert PASSWORD not in (tmp_path / "logs" / "prefect-server.log").read_text()


def test_mlflow_requires_the_password(tmp_path: Path) -> None:
    settings, port = guarded(tmp_path), free_port()
    url = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", settings.tracking_uri]
    command += mlflow_options(settings)
    secrets = server_environment(settings)
    search = f"{url}/api/2.0/mlflow/experiments/search?max_results=1"
    with started("mlflow-ui", command, f"{url}/health", settings, secrets):
        assert httpx.get(search).status_code == 401
        assert httpx.get(search, auth=("desk", "wrong")).status_code == 401
        assert httpx.get(search, auth=("desk", PASSWORD)).status_code == 200
    assert PASSWORD not in (tmp_path / "logs" / "mlflow-ui.log").read_text()
    assert PASSWORD.encode() not in (tmp_path / "mlflow-auth.db").read_bytes()
