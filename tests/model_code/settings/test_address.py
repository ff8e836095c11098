"""Addresses of model servers are checked when they are read."""

import pytest

from flows.cli.options import settings_from_environment
from model_code.errors import ConfigError, ServingError
from model_code.serving.aio import AsyncTritonClient
from model_code.serving.client import TritonClient
from model_code.settings.address import check_address

GOOD = ("127.0.0.1:8001", "desk:1", "a-b.c_d.example.:65535", "[::1]:8001", "[fe80::1%eth0]:9001")
BAD = {
    "http://127.0.0.1:8001": "has a scheme",
    "GRPC://desk:8001": "has a scheme",
    "dns:desk:8001": "has a scheme",
    "unix:/run/triton": "has a scheme",
    "127.0.0.1": "no port",
    "desk": "no port",
    ":8001": "no host",
    "desk:": "'' is not a port",
    "desk:0": "'0' is not a port",
    "desk:65536": "'65536' is not a port",
    "desk:-1": "'-1' is not a port",
    "desk:80o1": "'80o1' is not a port",
    "desk:8001/v2": "'8001/v2' is not a port",
    "desk:٨٠٠١": "is not a port",
    "::1:8001": "'::1' is not a host",
    "[::1:8001": "is not a host",
    "[desk]:8001": "is not a host",
    "999.0.0.1:8001": "is not a host",
    "user@desk:8001": "is not a host",
    " desk:8001": "is not a host",
    "desk:8000": "Triton's port for HTTP",
    "desk:8002": "Triton's port for metrics",
}


@pytest.mark.parametrize("address", GOOD)
def test_host_and_port_are_an_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_address(address) == address
    monkeypatch.setenv("TICKLINE_TRITON_URL", address)
    assert settings_from_environment().triton_url == address


@pytest.mark.parametrize(("address", "message"), BAD.items())
def test_what_is_no_address_is_refused_when_the_settings_are_read(
    address: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_TRITON_URL", address)
    with pytest.raises(ConfigError, match=message) as caught:
        settings_from_environment()
    assert "TICKLINE_TRITON_URL" in caught.value.what
    assert "docs/settings.md" in caught.value.remedy


@pytest.mark.parametrize("field", ["url", "control"])
def test_targets_have_addresses_too(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = {"url": "desk:8001"} | {field: "http://desk:8001"}
    monkeypatch.setenv("TICKLINE_TARGETS", str({"east": target}).replace("'", '"'))
    with pytest.raises(ConfigError, match="has a scheme"):
        settings_from_environment()


def test_an_empty_variable_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKLINE_TRITON_URL", "")
    assert settings_from_environment().triton_url is None


def test_clients_refuse_what_is_no_address() -> None:
    with pytest.raises(ServingError, match="has a scheme") as caught:
        TritonClient("http://desk:8001")
    assert caught.value.where == "http://desk:8001"
    with pytest.raises(ServingError, match="no port"):
        AsyncTritonClient(("desk:8001", "desk"))
