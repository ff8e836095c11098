import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import __main__
from flows.cli.__main__ import app
from flows.runs import local
from model_code import __version__
from model_code.errors import ConfigError, MarketError
from model_code.settings import ENGINE_NAMES, NightlySpec, Settings
from tests.support.market import hive

runner = CliRunner()


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[NightlySpec, bool]]:
    """What the nightly command would have run."""
    calls: list[tuple[NightlySpec, bool]] = []
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))

    def record(spec: NightlySpec, settings: Settings, *, refresh: bool) -> None:
        calls.append((spec, refresh))

    monkeypatch.setattr(local, "run_nightly", record)
    monkeypatch.setattr("flows.cli.tables.outcome_tables", lambda _: "rendered")
    return calls


def invoke(*arguments: str) -> Any:
    return runner.invoke(app, list(arguments), catch_exceptions=False)


def test_every_command_and_option_is_explained() -> None:
    text = plain(invoke("nightly", "--help").output)
    for option in ("--data", "--instrument", "--test-date", "--epochs", "--goals", "--refresh"):
        assert option in text
    assert "tickline rerun" in text
    for command in ("rerun", "engines", "ui", "worker", "data"):
        assert len(plain(invoke(command, "--help").output)) > 100


def test_version() -> None:
    assert invoke("--version").output.strip() == __version__


def test_options_become_the_specification(asked: list[tuple[NightlySpec, bool]]) -> None:
    invoke(
        "nightly", "--data", "simulated:?seed=1", "-i", "A.sim", "-i", "B.sim", "--epochs", "3",
        "--horizon-ms", "50", "--max-fault-fraction", "0.2", "-e", "openvino-fp32", "--refresh",
    )  # fmt: skip
    ((spec, refresh),) = asked
    assert refresh
    assert spec.market == "simulated:?seed=1"
    assert spec.instruments == ("A.sim", "B.sim")
    assert spec.training.epochs == 3
    assert spec.features.horizon_ms == 50
    assert spec.validation.max_fault_fraction == 0.2
    assert spec.benchmark.measured == ("torch-fp32", "openvino-fp32")


def test_without_options_the_specification_is_the_default(
    asked: list[tuple[NightlySpec, bool]],
) -> None:
    invoke("nightly")
    assert asked == [(NightlySpec(), False)]


def test_relative_market_is_made_absolute(
    asked: list[tuple[NightlySpec, bool]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("nightly", "--data", "ticks")
    assert asked[0][0].market == str(tmp_path / "ticks")


def test_specification_file_and_options_together(
    asked: list[tuple[NightlySpec, bool]], tmp_path: Path
) -> None:
    path = tmp_path / "night.yaml"
    path.write_text("training: {epochs: 9, batch_size: 16}\ninstruments: [A.sim]\n")
    invoke("nightly", "--spec", str(path), "--epochs", "2")
    spec = asked[0][0]
    assert (spec.training.epochs, spec.training.batch_size) == (2, 16)
    assert spec.instruments == ("A.sim",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epoch: 9}", "training.epoch: Extra inputs are not permitted"),
        ("training: {epochs: many}", "training.epochs: Input should be a valid integer"),
        ("features: {horizon_ms: .nan}", "features.horizon_ms"),
        ("- a list", "a specification must be a mapping"),
        ("{", "cannot read the specification"),
    ],
)
def test_wrong_specification_says_which_field(
    asked: list[tuple[NightlySpec, bool]], tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "night.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        invoke("nightly", "--spec", str(path))
    assert asked == []


def test_unknown_engine_is_refused(asked: list[tuple[NightlySpec, bool]]) -> None:
    with pytest.raises(ConfigError, match="only known engines"):
        invoke("nightly", "-e", "abacus")
    assert asked == []


def test_wrong_setting_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "resolved", lambda _: Settings(mlflow_experiment=3))
    with pytest.raises(ConfigError, match="a TICKLINE_ setting is wrong: mlflow_experiment"):
        invoke("nightly")


def test_rerun_requires_a_run() -> None:
    with pytest.raises(ConfigError, match="say which run"):
        invoke("rerun")


def test_engines_lists_every_one_with_a_reason_if_unavailable() -> None:
    text = plain(invoke("engines").output)
    for name in ENGINE_NAMES:
        assert name in text
    assert "available" in text


def test_describe_prints_a_table_and_draws_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__.out, "width", 200)
    uri = hive(tmp_path / "store", n=200)
    text = plain(invoke("data", "describe", "-d", uri, "--picture", str(tmp_path / "m.png")).output)
    assert "AAA.test" in text
    assert "2024-08-08" in text
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


def test_unreadable_market_is_a_market_error(tmp_path: Path) -> None:
    with pytest.raises(MarketError, match="cannot open the market store"):
        invoke("data", "describe", "-d", str(tmp_path / "none"))


def test_known_errors_are_messages_with_status_1_not_tracebacks(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "flows.cli",
            "data",
            "describe",
            "-d",
            str(tmp_path / "none"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "tickline failed" in done.stderr
    assert "where:" in done.stderr
    assert "Traceback" not in done.stderr
