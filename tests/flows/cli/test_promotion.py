import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.__main__ import app
from flows.runs import promotions
from model_code.errors import ConfigError, IntegrityError
from model_code.repository.audit import AuditLog
from model_code.repository.decisions import Subject
from model_code.settings import PromotionSpec, Settings
from tasks.promotion.records import Promoted, RolledBack
from tasks.promotion.verify_audit import Difference, Verified

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


def test_what_is_signed_is_shown_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    subject = Subject(
        version=7, manifest="m" * 64, engine_sha256="e" * 64, config_sha256="c" * 64,
        policy_sha256="p" * 64, verdict="pass", flow_run_id="f", started_by="bob",
        loosened=("max_disagreement 0.4, the policy's limit is 0.2",),
    )  # fmt: skip
    text = subject.text("approve", "ada", "sound\nat length")
    agreed: list[bool] = []

    def decide(*_: Any, key: Path, agree: Any, **__: Any) -> None:
        assert key == tmp_path / "ada"
        agreed.append(agree(subject, text))

    monkeypatch.setattr(promotions, "decide", decide)
    words = ["7", "--reviewer", "ada", "--reason", "sound", "--key", str(tmp_path / "ada")]
    said = invoke("approve", *words)
    assert agreed == [True], "without a terminal nobody can be asked"
    assert "loosened: max_disagreement 0.4, the policy's limit is 0.2" in said
    for line in text.splitlines():
        assert line in said
    assert r'reason: "sound\nat length"' in said

    monkeypatch.setattr("flows.cli.promotion._terminal", lambda: True)
    runner.invoke(app, ["approve", *words], input="n\n")
    runner.invoke(app, ["approve", *words], input="y\n")
    runner.invoke(app, ["approve", *words, "--yes"])
    assert agreed == [True, False, True, True]


def test_the_differences_are_lines_of_a_table_of_80_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = Difference("folder of version 12", "its approval is not in the audit file: " + "x" * 90)
    short = Difference("MLflow version 3", "tag approved_by is [bold]mallory")
    found = Verified(9, 2, (1, 3), (long, short))
    monkeypatch.setattr("tasks.promotion.verify_audit.verify_audit", lambda _: found)
    done = runner.invoke(app, ["audit", "--verify"], env={"COLUMNS": "80"})
    assert done.exit_code == 1
    assert max(map(len, done.output.splitlines())) <= 80
    assert "tag approved_by is [bold]mallory" in done.output
    assert "2 differences: 9 records, 2 signatures, 2 promoted versions compared" in done.output
    monkeypatch.setattr(
        "tasks.promotion.verify_audit.verify_audit",
        lambda _: found._replace(differences=()),
    )
    done = runner.invoke(app, ["audit", "--verify"])
    assert (done.exit_code, "no difference" in done.output) == (0, True)
