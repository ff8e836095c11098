"""`tickline feedback` and the options of the prediction log."""

from pathlib import Path

import pytest

from flows.cli.live import feedback
from flows.cli.live.log import log_changes, prediction_log
from flows.cli.live.streams import read_service_spec
from infra.live.feedback.spec import LogSpec
from model_code.live.feedback.figures import Figures
from model_code.settings import Settings
from tasks.monitoring import live_feedback
from tasks.monitoring.live_feedback import Logged
from tests.support.cli import tickline


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(feedback.out, "width", 80)
    return Settings(home=tmp_path / "home").resolved()


def test_without_a_log_nothing_is_logged(settings: Settings) -> None:
    assert tickline("feedback").strip() == "nothing new to log: an hour is logged when it is over"


def test_each_logged_hour_is_a_row(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Figures(
        version=3, from_ns=0, until_ns=1, decisions=1200, unlabelled=200, base_rate=0.125,
        auc=0.8042, psi={"spread": 0.1, "volatility": 0.31},
    )  # fmt: skip
    bare = Figures(version=3, from_ns=0, until_ns=1, decisions=5, unlabelled=5, psi={"spread": 0.0})
    hours = [Logged("desk", 480_000, known), Logged("desk", 480_001, bare)]
    notes = ["version 5 of desk is not judged: no run"]
    monkeypatch.setattr(live_feedback, "log_feedback", lambda _: (hours, notes))
    printed = tickline("feedback")
    assert printed.startswith(f"{notes[0]} ")
    assert "2024-10-04 00 3 1,200 1,000 12.5% 0.804 volatility 0.31" in printed
    assert "2024-10-04 01 3 5 0 – – spread 0.00" in printed


def test_either_option_of_the_log_asks_for_one(settings: Settings) -> None:
    assert log_changes(None, None) == {}
    assert log_changes(0.5, None) == {"log": {"rate": 0.5, "keep_days": None}}
    chosen = read_service_spec(None, None, demo=False, **log_changes(None, 3.0))
    assert chosen.log == LogSpec(keep_days=3.0)
    assert prediction_log(settings, read_service_spec(None, None, demo=False), print) is None
    assert prediction_log(settings, chosen, print) is not None
