"""Waiting for Prefect's server before the flows are deployed."""

import http.server
import threading
from pathlib import Path

import pytest

from infra.deploy import main, wait_for_server
from infra.servers import HOST, ServerError, free_port
from model_code.settings import Settings


class _Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def test_it_waits_until_the_server_answers(tmp_path: Path) -> None:
    port, found = free_port(), list[str]()
    url = f"http://{HOST}:{port}/api"
    settings = Settings(home=tmp_path, prefect_api_url=url)
    waiting = threading.Thread(target=lambda: found.append(wait_for_server(settings)))
    waiting.start()
    waiting.join(1.5)
    assert waiting.is_alive(), "there is no server yet"
    with http.server.HTTPServer((HOST, port), _Health) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        waiting.join(120)
        server.shutdown()
        serving.join(60)
    assert found == [url]


def test_it_gives_up_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://{HOST}:{free_port()}/api"
    with pytest.raises(ServerError, match="did not answer within 0 s") as caught:
        wait_for_server(Settings(home=tmp_path, prefect_api_url=url), seconds=0.0)
    assert caught.value.where == url
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path))
    monkeypatch.setenv("TICKLINE_PREFECT_API_URL", "http://desk:hush-hush@127.0.0.1:9/api")
    assert main(["--wait-only", "--timeout", "0"]) == 1
    said = capsys.readouterr().err
    assert "did not answer within 0 s" in said
    assert "hush-hush" not in said
