"""Proxies of the environment are never asked for what is on this machine."""

import os
import signal
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
import yaml
from requests.utils import should_bypass_proxies

from flows.cli.__main__ import main
from flows.cli.options import settings_from_environment
from infra.proxies import LOOPBACK, NAMES, PROXIES, require_usable, without_loopback
from infra.servers import HOST, environment, free_port, free_ports, healthy
from model_code.errors import ConfigError
from model_code.settings import Settings
from tasks.runs.aliases import Aliases
from tests.support.commands import module
from tests.support.flow import EASY, SIMULATED, tiny

PROXY = "http://127.0.0.1:9"  # nobody listens


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"no_proxy": "desk, 127.0.0.1"}, "desk,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "desk"}, "desk,127.0.0.1,localhost,::1"),
        ({"no_proxy": "desk", "NO_PROXY": "other"}, "desk,127.0.0.1,localhost,::1"),
        ({"no_proxy": "", "NO_PROXY": "desk"}, "desk,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "*"}, "*"),
        # httpx fails at brackets and at networks of IPv6, and no client reads these
        ({"NO_PROXY": "[::1],10.0.0.0/8,fe80::/10"}, "::1,10.0.0.0/8,127.0.0.1,localhost"),
        ({"NO_PROXY": "desk:8080"}, "desk:8080,127.0.0.1,localhost,::1"),
    ],
)
def test_what_was_excluded_stays_excluded(before: dict[str, str], after: str) -> None:
    assert without_loopback(before) == {"no_proxy": after, "NO_PROXY": after}


def test_what_grpc_alone_reads_excludes_loopback_too() -> None:
    found = without_loopback({"no_grpc_proxy": "triton.example"})
    assert found["no_grpc_proxy"] == "triton.example,127.0.0.1,localhost,::1"
    assert "no_grpc_proxy" not in without_loopback({"no_proxy": "desk"})


@pytest.mark.parametrize("proxy", [PROXY, "127.0.0.1:9", "socks5://127.0.0.1:9", "socks5h://a:9"])
def test_proxies_that_clients_understand(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _set_proxies(monkeypatch, proxy)
    require_usable(os.environ)
    assert httpx.Client()._mounts


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("socks4://127.0.0.1:9", "Unknown scheme"),
        ("ftp://127.0.0.1:9", "Unknown scheme"),
        ("http://127.0.0.1:port", "Invalid port"),
    ],
)
def test_a_proxy_that_no_client_understands_is_named_before_anything_starts(
    proxy: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set_proxies(monkeypatch, proxy)
    with pytest.raises(ConfigError, match=reason) as caught:
        settings_from_environment()
    assert "HTTPS_PROXY" in caught.value.where
    assert "http://host:port" in caught.value.remedy


def _set_proxies(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, proxy)
    for name, value in without_loopback(os.environ).items():
        monkeypatch.setenv(name, value)


def test_each_library_asks_loopback_directly_and_the_web_by_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _set_proxies(monkeypatch, PROXY)
    with httpx.Client() as client:
        for host in LOOPBACK:
            url = httpx.URL(scheme="http", host=host, port=4200)
            assert client._transport_for_url(url) is client._transport
            assert should_bypass_proxies(str(url), no_proxy=None)
            assert urllib.request.proxy_bypass(host)
        web = httpx.URL("http://market.example/")
        assert client._transport_for_url(web) is not client._transport
        assert not should_bypass_proxies(str(web), no_proxy=None)


def test_every_command_keeps_loopback_away_from_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tickline", "--version"])
    monkeypatch.setenv("no_proxy", "desk")
    monkeypatch.setenv("NO_PROXY", "desk")
    with pytest.raises(SystemExit):
        main()
    for name in NAMES:
        assert os.environ[name] == "desk,127.0.0.1,localhost,::1"


def test_every_child_keeps_loopback_away_from_proxies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever starts it: a demo, a unit of systemd, a worker."""
    _set_proxies(monkeypatch, PROXY)
    for name in NAMES:
        monkeypatch.setenv(name, "desk")
    found = environment(Settings(home=tmp_path))
    for name in NAMES:
        assert found[name] == "desk,127.0.0.1,localhost,::1"


def test_a_server_elsewhere_is_asked_by_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer((HOST, 0), Proxied) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        _set_proxies(monkeypatch, f"http://{HOST}:{proxy.server_port}")
        asked = "http://mlflow.example:5000/health"
        assert healthy(asked, timeout_s=60)
        assert not healthy(f"http://{HOST}:{free_port()}/health"), "the proxy would answer"
        settings = Settings(home=tmp_path, mlflow_tracking_uri="http://mlflow.example:5000")
        Aliases(settings).require_answer()
        proxy.shutdown()


class Proxied(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "http://mlflow.example:5000/health" else 400)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.servers
def test_a_night_and_the_pages_behind_proxies_that_are_away(tmp_path: Path) -> None:
    outside = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    outside |= dict.fromkeys(PROXIES, PROXY) | {"TICKLINE_HOME": str(tmp_path / "home")}
    outside |= dict.fromkeys(("all_proxy", "ALL_PROXY"), "socks5h://127.0.0.1:9")
    outside = {name: value for name, value in outside.items() if "PREFECT_" not in name}
    spec, goals = tmp_path / "spec.yaml", tmp_path / "goals.yaml"
    spec.write_text(yaml.safe_dump(tiny(SIMULATED).model_dump(mode="json")))
    goals.write_text(EASY)
    words = ["nightly", "--spec", str(spec), "--goals", str(goals), "--engine", "onnxruntime-fp32"]
    assert "registered" in module("flows.cli", *words, env=outside)
    ports = free_ports(2)
    options = ["--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "ui", *options], env=outside, stdout=subprocess.PIPE
    ) as pages:
        try:
            assert pages.stdout is not None
            shown = [pages.stdout.readline() for _ in range(4)]
            assert b"Ctrl-C stops both" in shown[-1], shown
        finally:
            pages.send_signal(signal.SIGINT)
