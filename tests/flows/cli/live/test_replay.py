"""`tickline replay`, without a server."""

import re
import shutil
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.__main__ import app
from flows.cli.live import replay
from model_code.errors import ConfigError
from model_code.features.served import ServedFeatures
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, FeatureSpec, Settings
from tests.support.cli import tickline
from tests.support.market import DATES, SYMBOLS, hive
from tests.support.promotion import registered
from tests.support.serving import APPROVAL, staged

PAIRED = ServedFeatures.of(FeatureSpec(feature_set="paired"), {SYMBOLS[1]: (SYMBOLS[0],)})


@pytest.fixture
def store(tmp_path: Path) -> str:
    return hive(tmp_path / "store", n=120)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home whose staging repository has version 1, which sees the set `paired`."""
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(replay.out, "width", 80)
    settings = Settings(home=tmp_path / "home").resolved()
    staged(settings.staging_repository, 1, features=PAIRED, flow_run_id="night-1")
    return settings


def lines(*arguments: object) -> list[str]:
    words = ["replay", *map(str, arguments)]
    return CliRunner().invoke(app, words, catch_exceptions=False).output.splitlines()


def test_every_decision_is_compared_and_the_ledger_adds_up(desk: Settings, store: str) -> None:
    found = lines("--data", store)
    assert f"{4 * 57} decisions, all equal to the batch pipeline's" in found
    ledger = next(line for line in found if line.startswith("ledger: "))
    assert ledger.startswith("ledger: in ")
    assert ledger.endswith("lost 0 reordered 0 duplicated 0")
    whole, *parts = [int(text) for text in re.findall(r"\d+", ledger.replace(",", ""))]
    assert whole == sum(parts[:5])
    assert re.fullmatch(r"[\d,]+ ticks/s, .*", found[-1])
    assert f"no decision: warming {4 * 63}" in found
    assert "version 1, features paired, yes from 0.5" in "\n".join(found)


def test_the_serving_version_decides_before_a_newer_staged_one(desk: Settings, store: str) -> None:
    staged(desk.staging_repository, 2)
    assert "version 2, features solo" in tickline("replay", "--data", store)
    assert "version 1, features paired" in tickline("replay", "--data", store, "--version", 1)
    assert "version 1, features paired" in tickline("replay", "--data", store, "--run", "night-1")
    serving = ServingRepository(desk.serving_repository)
    serving.publish(desk.staging_repository / MODEL_NAME / "1", APPROVAL)
    shutil.rmtree(desk.staging_repository / MODEL_NAME / "1")
    Route(champion=Target(model=MODEL_NAME, version=1)).save(serving.route_file)
    assert "version 1, features paired" in tickline("replay", "--data", store)


def test_a_nightly_is_found_by_its_name(desk: Settings, store: str, mlflow_template: Path) -> None:
    shutil.copyfile(mlflow_template, desk.home / "mlflow.db")
    for folder in ("staging", "built-1-onnxruntime-fp32"):
        shutil.rmtree(desk.home / folder)
    registered(desk, 1, flow_run_id="f-1", features=PAIRED)
    assert "version 1," in tickline("replay", "--data", store, "--run", "night-1")
    with pytest.raises(ConfigError, match="no staged or serving version of run night-9"):
        tickline("replay", "--data", store, "--run", "night-9")


def test_an_instrument_brings_its_leaders(desk: Settings, store: str) -> None:
    both = tickline("replay", "--data", store, "--symbols", SYMBOLS[1], "--date", DATES[1])
    assert f"{2 * 57} decisions" in both
    alone = tickline("replay", "--data", store, "--symbols", SYMBOLS[0], "--date", DATES[1])
    assert "57 decisions" in alone
    assert SYMBOLS[1] not in alone


@pytest.mark.parametrize(("latency", "headings"), [("2.5", 1), ("measured", 2)])
def test_earnings_fit_the_page(desk: Settings, store: str, latency: str, headings: int) -> None:
    found = lines("--data", store, "--latency", latency, "--cost-bps", 1.5)
    assert max(len(line) for line in found if not line.startswith("ledger")) <= 80
    text = " ".join(found)
    assert text.count("ms later") == headings
    assert text.count("every window, bps each") == headings
    assert "cost 1.5 bps" in re.sub(r"\s+", " ", text)
    assert f"{4 * 57} decisions, all equal" in text


def test_simulated_ticks_are_labelled(desk: Settings) -> None:
    found = tickline("replay", "--data", "simulated:?days=1&minutes=0.1&instruments=1")
    assert "SIMULATED MARKET" in found


def test_the_speed_holds_the_messages_back(
    desk: Settings, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    lines("--data", store, "--symbols", SYMBOLS[0], "--date", DATES[0], "--speed", "10")
    assert len(slept) > 20
    assert 0 < max(slept) < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--speed", "fast"], "--speed is 'fast', expected max"),
        (["--speed", "0"], "--speed is '0'"),
        (["--speed", "nan"], "--speed is 'nan'"),
        (["--latency", "soon"], "--latency is 'soon', expected a number of ms, or measured"),
        (["--latency", "-1"], "--latency is '-1'"),
        (["--version", "9"], "no version 9"),
        (["--version", "1", "--run", "x"], "exclude each other"),
        (["--symbols", "ZZZ"], "not in the store: ZZZ"),
        (["--date", "2020-01-01"], "not in the store: 2020-01-01"),
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_named(
    desk: Settings, store: str, arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        tickline("replay", "--data", store, *arguments)
    assert error.value.remedy


def test_a_version_that_looks_at_the_book_s_depth_is_refused(desk: Settings, store: str) -> None:
    seen = ServedFeatures.of(FeatureSpec(feature_set="depth"), {})
    staged(desk.staging_repository, 2, features=seen)
    with pytest.raises(ConfigError, match="no message carries what the set depth looks at"):
        tickline("replay", "--data", store)


def test_without_any_version_it_says_how_to_make_one(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="no model version") as error:
        tickline("replay", "--data", store)
    assert "tickline nightly" in error.value.remedy
