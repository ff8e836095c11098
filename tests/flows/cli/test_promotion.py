import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.__main__ import app
from flows.runs import promotions
from model_code.errors import ConfigError, IntegrityError
from model_code.repository.audit import AuditLog
from model_code.settings import PromotionSpec, Settings
from tasks.promotion.records import Promoted, RolledBack

runner = CliRunner()


def invoke(*arguments: str) -> str:
    output = runner.invoke(app, list(arguments), catch_exceptions=False).output
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", output))


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("flows.cli.promotion.account", lambda: "bob")
    return Settings().resolved()


def test_every_command_is_explained() -> None:
    for command in ("promote", "approve", "reject", "rollback", "audit"):
        assert len(invoke(command, "--help")) > 150


def test_options_become_the_promotion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(promotions, "start", lambda *asked: calls.append(asked[1:]))
    monkeypatch.setattr("flows.cli.promotion.say_outcome", lambda _: None)
    path = tmp_path / "strict.yaml"
    path.write_text("shares: [0.1, 1.0]\nmax_p99_ms: null\n")
    invoke("promote")
    invoke("promote", "--version", "7", "--spec", str(path), "--allow-simulated")
    invoke("promote", "--version", "8", "--not-comparable", "a new label")
    wanted = PromotionSpec(shares=(0.1, 1.0), max_p99_ms=None, allow_simulated=True)
    excused = PromotionSpec(not_comparable="a new label")
    assert calls == [(None, "bob", PromotionSpec()), (7, "bob", wanted), (8, "bob", excused)]


def test_a_version_that_was_not_compared_needs_a_reason() -> None:
    with pytest.raises(ConfigError, match="not_comparable"):
        invoke("promote", "--version", "8", "--not-comparable", "  ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("share: [1.0]", "share: Extra inputs are not permitted"),
        ("shares: [0.5, 0.1]", "shares must rise and end with 1"),
        ("- a list", "a specification must be a mapping"),
        ("{", "cannot read the specification"),
    ],
)
def test_a_wrong_specification_says_which_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "strict.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        invoke("promote", "--spec", str(path))


def test_a_decision_is_passed_on_and_a_worker_resumes_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(promotions, "decide", lambda *asked, **_: calls.append(asked[1:]))
    said = invoke("reject", "7", "--reviewer", "ada", "--reason", "half a day is missing")
    assert calls == [("7", "reject", "ada", "half a day is missing")]
    assert "a worker will pick it up" in said


def test_an_already_serving_version_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Promoted(version=7, outcome="already serving", champion=7, previous=6, decided=None)
    monkeypatch.setattr(promotions, "start", lambda *_: done)
    assert "version 7 is already serving; a rollback goes to: version 6" in invoke("promote")


def test_rollback_prints_the_serving_and_the_next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    done = RolledBack(version=6, from_version=7, previous=4, seconds=1.23)
    monkeypatch.setattr(promotions, "roll_back", lambda *_: done)
    said = invoke("rollback", "--reason", "alarms")
    assert "version 6 is serving (before: 7), after 1.2 s" in said
    assert "the next rollback goes to: version 4" in said


def test_audit_prints_and_verifies_records(desk: Settings) -> None:
    assert "no promotion yet" in invoke("audit")
    log = AuditLog(desk.audit_file)
    log.append("approved", "a", {"version": 7, "reviewer": "ada", "reason": "sound\nat length"})
    newest = log.append("rolled back", "b", {"version": 6, "from": 7, "by": "bob", "reason": "bad"})
    said = invoke("audit")
    assert "approved 7 ada sound" in said
    assert "7 -> 6 bob bad" in said
    assert newest.sha256 in said
    assert f'"sha256":"{newest.sha256}"' in invoke("audit", "--json")
    desk.audit_file.write_text(desk.audit_file.read_text().replace('"bad"', '"good"'))
    with pytest.raises(IntegrityError, match="line 2 was changed"):
        invoke("audit")
