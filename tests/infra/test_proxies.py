"""Proxies of the environment are never asked for what is on this machine."""

import os
import sys
import urllib.request

import httpx
import pytest
from requests.utils import should_bypass_proxies

from flows.cli.__main__ import main
from infra.proxies import LOOPBACK, NAMES, without_loopback

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
    ],
)
def test_what_was_excluded_stays_excluded(before: dict[str, str], after: str) -> None:
    assert without_loopback(before) == {"no_proxy": after, "NO_PROXY": after}


def test_each_library_asks_loopback_directly_and_the_web_by_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, PROXY)
    for name, value in without_loopback(os.environ).items():
        monkeypatch.setenv(name, value)
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
