"""Ports and folders of every command."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flows.cli.__main__ import app
from flows.cli.options import expanded, local, require_different
from infra import ui
from infra.triton import daemon, install
from model_code.errors import ConfigError
from tests.flows.cli.test_main import COMMANDS, parameters
from tests.support.cli import tickline

ALL = [(" ".join(path), found) for path, command in COMMANDS for found in parameters(command)]
PORTS = [(path, one) for path, one in ALL if re.search(r"(^|_)port$|^page$|^metrics$", one.name)]
PATHS = [(path, one) for path, one in ALL if one.type_descriptor.annotation is Path]


def test_the_walk_sees_ports_and_paths() -> None:
    assert {path for path, _ in PORTS} == {"metrics", "triton up", "ui", "live"}
    assert {"nightly", "predict", "dashboard", "data download", "live"} <= {p for p, _ in PATHS}


@pytest.mark.parametrize(("path", "option"), PORTS)
def test_a_port_is_1_to_65535(path: str, option: Any) -> None:
    assert (option.min, option.max) == (1, 65535)
    for port in ("0", "65536", "-1"):
        done = CliRunner().invoke(app, [*path.split(), option.opts[0], port])
        assert done.exit_code == 2, done.output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["triton", "up", "--http-port", "8001"], "--http-port and --grpc-port are both 8001"),
        (["triton", "up", "--metrics-port", "8000"], "--http-port and --metrics-port are both"),
        (["ui", "--prefect-port", "5000"], "--prefect-port and --mlflow-port are both 5000"),
        (["live", "--page", "9000", "--metrics", "9000"], "--page and --metrics are both 9000"),
    ],
)
def test_the_same_port_twice_is_an_error_before_anything_starts(
    command: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("started")

    for place, name in ((install, "install"), (daemon, "up"), (ui, "serve")):
        monkeypatch.setattr(place, name, started)
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    with pytest.raises(ConfigError, match=said) as caught:
        tickline(*command)
    assert caught.value.remedy == "choose different ports"
    assert not (tmp_path / "home").exists()


def test_ports_that_are_not_used_are_not_the_same() -> None:
    require_different({"--page": None, "--metrics": None, "--port": 1})


@pytest.mark.parametrize(("path", "option"), PATHS)
def test_every_path_has_its_tilde_replaced(
    path: str, option: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert option.callback is not None
    assert option.callback(None, option, Path("~/x")) == tmp_path / "x"


def test_an_unknown_user_is_an_error() -> None:
    with pytest.raises(typer.BadParameter, match="write the folder in full"):
        expanded(Path("~no-such-user/x"))
    with pytest.raises(ConfigError, match="write the folder in full"):
        local("~no-such-user/x")
    assert expanded(None) is None
    assert local("s3://ticks/~x") is None
