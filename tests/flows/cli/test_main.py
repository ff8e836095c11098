import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from flows.cli import benchmark, data
from flows.cli.__main__ import app
from flows.cli.options import PANELS
from flows.runs import local
from infra.triton.benchmark_row import NOT_INSTALLED
from model_code import __version__
from model_code.errors import ConfigError, MarketError
from model_code.settings import (
    DESIGN,
    ENGINE_NAMES,
    TRITON_ROW,
    BlendSpec,
    MlpSpec,
    NetworkSpec,
    NightlySpec,
    Settings,
)
from tests.support.market import hive

runner = CliRunner()


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[NightlySpec, bool]]:
    """What the nightly command would have run."""
    calls: list[tuple[NightlySpec, bool]] = []
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))

    def record(spec: NightlySpec, settings: Settings, *, refresh: bool, as_of: None) -> None:
        calls.append((spec, refresh))

    monkeypatch.setattr(local, "run_nightly", record)
    monkeypatch.setattr("flows.cli.tables.outcome_tables", lambda _: "rendered")
    return calls


def invoke(*arguments: str) -> Any:
    return runner.invoke(app, list(arguments), catch_exceptions=False)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The command and all below it, each with the words that call it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


ROOT = typer.main.get_command(app)
COMMANDS = list(commands(ROOT))
every_command = pytest.mark.parametrize(
    ("path", "command"), COMMANDS, ids=[" ".join(path) or "tickline" for path, _ in COMMANDS]
)


def help_page(path: tuple[str, ...], columns: int) -> list[str]:
    page = runner.invoke(app, [*path, "--help"], env={"COLUMNS": str(columns)}).output
    return re.sub(r"\x1b\[[0-9;]*m", "", page).splitlines()


def shown(markup: str | None) -> str:
    """The text that rich's markup shows."""
    return Text.from_markup(markup or "").plain


def parameters(command: Any) -> list[Any]:
    return [found for found in command.params if found.name != "help"]


def test_the_walk_sees_commands_of_groups_and_of_the_root() -> None:
    assert {(), ("nightly",), ("triton", "up"), ("alerts", "install"), ("data", "describe")} <= {
        path for path, _ in COMMANDS
    }


@every_command
def test_every_command_is_explained_in_a_sentence(path: tuple[str, ...], command: Any) -> None:
    first = shown(command.help).strip().partition("\n\n")[0]
    assert re.fullmatch(r"[A-Z].{15,}\.", " ".join(first.split())), first


@every_command
def test_every_option_and_argument_is_explained(path: tuple[str, ...], command: Any) -> None:
    brief = [found.name for found in parameters(command) if len(shown(found.help)) < 10]
    assert brief == []


@every_command
def test_every_option_that_may_be_left_out_shows_its_default(
    path: tuple[str, ...], command: Any
) -> None:
    rows = [line for line in help_page(path, 1000) if line.startswith("│")]
    silent = []
    for found in parameters(command):
        if found.param_type_name != "option" or found.is_flag or found.required:
            continue
        (row,) = (row for row in rows if found.opts[0] in row.split())
        if "[default: " not in row and "[env var: " not in row:
            silent.append(found.opts[0])
    assert silent == []


@every_command
def test_help_fits_80_columns_and_no_word_is_cut(path: tuple[str, ...], command: Any) -> None:
    lines = help_page(path, 80)
    assert max(len(line) for line in lines) <= 80
    page = re.sub(r"[│╭╮╰╯─]", " ", "\n".join(lines))
    assert "…" not in page
    wide = re.sub(r"[│╭╮╰╯─]", " ", "\n".join(help_page(path, 1000)))
    assert sorted(page.split()) == sorted(wide.split())


def test_every_command_of_the_root_is_in_a_named_group() -> None:
    page = "\n".join(help_page((), 80))
    assert [panel for panel in PANELS if f"─ {panel} ─" not in page] == []
    assert "─ Commands ─" not in page
    assert {found.rich_help_panel for found in ROOT.commands.values()} == set(PANELS)  # type: ignore[attr-defined]


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


def test_a_named_network_is_a_preset_that_file_and_options_override(
    asked: list[tuple[NightlySpec, bool]], tmp_path: Path
) -> None:
    invoke("nightly", "--network", "mlp")
    invoke("nightly", "--network", "design")
    sizes = tmp_path / "sizes.yaml"
    sizes.write_text("network: {hidden: 32}\ntraining: {epochs: 9}\n")
    invoke("nightly", "--network", "mlp", "--spec", str(sizes), "--learning-rate", "0.002")
    invoke("nightly", "--network", "blend")
    plain_mlp, design, changed, blend = (spec for spec, _ in asked)
    assert blend.network == BlendSpec()
    assert blend.training == plain_mlp.training
    assert plain_mlp.network == MlpSpec()
    assert plain_mlp.training == NightlySpec().training
    assert design.network == NetworkSpec()
    assert design.training == DESIGN.training
    assert {len(spec.models) for spec, _ in asked} == {1}
    assert changed.network == MlpSpec(hidden=32)
    assert (changed.training.epochs, changed.training.learning_rate) == (9, 0.002)
    with pytest.raises(ConfigError, match="no network named 'lstm'"):
        invoke("nightly", "--network", "lstm")


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
    with pytest.raises(ConfigError, match="a TICKLINE_ setting is wrong: TICKLINE_MLFLOW_EXP"):
        invoke("nightly")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TICKLINE_AUTH_PASSWORD", "hush-2026", "at least 12 characters"),
        ("TICKLINE_AUTH_PASSWORD", "hush-2026-hüsch", "printable ASCII"),
        ("TICKLINE_AUTH_USERNAME", "ada:grace", "no colon"),
        ("TICKLINE_REDIS_PASSWORD", "hush-2026\n", "line breaks"),
        ("TICKLINE_TRITON_KEY", "hush-2026", "a key has 16 to 128"),
        # a rule over several settings sees them all
        ("TICKLINE_QUORUM", "3", "a quorum needs targets"),
    ],
)
@pytest.mark.parametrize("words", [("status",), ("up",), ("nightly",), ("audit",)])
def test_a_wrong_credential_stops_every_command_and_is_not_shown(
    words: tuple[str, ...],
    name: str,
    value: str,
    message: str,
    asked: list[tuple[NightlySpec, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TICKLINE_AUTH_PASSWORD", "hush-hush-hush")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message) as caught:
        invoke(*words)
    assert "hush" not in str(caught.value)
    assert asked == []


def test_rerun_requires_a_run() -> None:
    with pytest.raises(ConfigError, match="say which run"):
        invoke("rerun")


@pytest.mark.parametrize("served", [True, False])
def test_engines_lists_every_engine_as_available_or_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    reasons = dict.fromkeys(ENGINE_NAMES) | {"tensorrt-fp16": "no GPU"}
    monkeypatch.setattr("model_code.engines.registry.available", lambda: reasons)
    monkeypatch.setattr("infra.triton.install.installed", lambda _settings: served)
    monkeypatch.setattr(benchmark.out, "width", 200)
    rows = [line.strip("│ ").split("│") for line in invoke("engines").output.splitlines()]
    listed = {row[0].strip(): row[-1].strip() for row in rows if len(row) == 4}
    assert listed == {
        name: "available" if reason is None else f"unavailable: {reason}"
        for name, reason in reasons.items()
    } | {TRITON_ROW: "available" if served else f"unavailable: {NOT_INSTALLED}"}


def test_describe_prints_tables_of_80_columns_and_draws_a_picture_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("TICKLINE_HOME", str(home))
    uri = hive(tmp_path / "s", n=200)
    (tmp_path / "s" / "readme.txt").write_text("not ticks")
    text = invoke("data", "describe", "-d", uri).output
    tables, _, lines = text.partition("profile:")
    assert max(map(len, tables.splitlines())) <= 80
    assert len(re.findall(r"2024-08-08 +AAA\.test +200", tables)) == 1
    assert len(re.findall("2024-08-08 +AAA", tables)) == 2
    assert lines.startswith(" crypto (assumed; choose with --profile)")
    assert "AAA.test: time resolution 1 ns; aggressor: flag" in lines
    assert "1 file passed over, not below quotes/, trades/ or depth/: readme.txt" in lines
    assert (home / "market.png").read_bytes().startswith(b"\x89PNG")

    picture = tmp_path / "m.png"
    monkeypatch.setattr(data.out, "width", 200)
    wide = invoke("data", "describe", "-d", uri, "--wide", "--picture", str(picture)).output
    assert len(re.findall("2024-08-08 +AAA", wide)) == 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_symbols_with_brackets_are_printed_as_they_are(tmp_path: Path) -> None:
    uri = hive(tmp_path / "s", n=50, symbols=("AB[bold]", "[1]CD"))
    text = invoke("data", "describe", "-d", uri, "--picture", str(tmp_path / "m.png")).output
    assert {"AB[bold]", "[1]CD"} <= set(text.split())


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
