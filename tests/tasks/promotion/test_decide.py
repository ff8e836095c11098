from pathlib import Path

import pytest

from model_code.repository.decisions import Subject
from model_code.repository.policy import PolicyFile
from model_code.settings import Settings
from tasks.promotion.decide import Decision, PlainDecision, problem, text_of
from tests.support.policy import write_policy


def subject_of(policy: PolicyFile, started_by: str = "bob", night_by: str = "") -> Subject:
    return Subject(
        version=3, manifest="m" * 64, engine_sha256="e" * 64, config_sha256="c" * 64,
        policy_sha256=policy.sha256, verdict="pass", flow_run_id="f", started_by=started_by,
        night_by=night_by,
    )  # fmt: skip


def said(
    tmp_path: Path, reviewer: str, started_by: str, verdict: str = "approve", night_by: str = ""
) -> str | None:
    policy = write_policy(Settings(home=tmp_path))
    fields = {"verdict": verdict, "reviewer": reviewer, "reason": "sound"}
    subject = subject_of(policy, started_by, night_by)
    return problem(Decision.model_validate(fields), subject, policy)


def test_another_reviewer_decides(tmp_path: Path) -> None:
    assert said(tmp_path, "ada", "grace") is None
    assert said(tmp_path, " ada ", "bob") is None
    assert said(tmp_path, "ada", "ada", "reject") is None, "one's own may be rejected"


@pytest.mark.parametrize("started_by", ["ada", " ada", "ada ", "Ada", "ADA"])
def test_nobody_approves_their_own_promotion_however_the_name_is_written(
    tmp_path: Path, started_by: str
) -> None:
    assert "ada started this promotion" in str(said(tmp_path, "ada", started_by))


def test_who_ran_the_night_does_not_approve_its_version(tmp_path: Path) -> None:
    wrong = said(tmp_path, "ada", "bob", night_by="carl, Ada")
    assert "ada started the night of version 3" in str(wrong)
    assert said(tmp_path, "grace", "bob", night_by="Ada") is None
    assert said(tmp_path, "ada", "bob", "reject", night_by="ada") is None


def test_a_name_that_is_not_in_the_policy_says_where_the_policy_is(tmp_path: Path) -> None:
    wrong = str(said(tmp_path, "mallory", "bob"))
    assert "'mallory' is not one of the policy's (ada, grace; " in wrong
    assert "serving-policy.yaml" in wrong


def test_a_policy_that_changed_after_the_evidence_voids_an_approval(tmp_path: Path) -> None:
    shown = write_policy(Settings(home=tmp_path))
    changed = write_policy(Settings(home=tmp_path), reviewers=["ada", "mallory"])
    for verdict, wrong in (("approve", "was changed after the evidence was shown"), ("reject", "")):
        fields = {"verdict": verdict, "reviewer": "mallory", "reason": "sound"}
        decision = Decision.model_validate(fields)
        assert wrong in (problem(decision, subject_of(shown), changed) or "")


def test_the_signed_text_has_the_last_day_as_the_record_has_it(tmp_path: Path) -> None:
    subject = subject_of(write_policy(Settings(home=tmp_path)))
    subject = subject.model_copy(update={"exceptions": ("no baseline",)})
    texts = {
        text_of(
            Decision(verdict="approve", reviewer="ada", reason="sound", owner="bob", expires=day),
            subject,
        )
        for day in ("2027-01-31", " 20270131 ")
    }
    assert len(texts) == 1
    assert "2027-01-31" in texts.pop()


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        (Decision, ["verdict", "reviewer", "reason", "owner", "expires"]),
        (PlainDecision, ["verdict", "reviewer", "reason"]),
    ],
)
def test_the_form_has_no_more_fields_than_a_reviewer_fills_in(
    form: type[Decision], fields: list[str]
) -> None:
    shown = form.with_initial_data(description="the evidence")
    schema = shown.model_json_schema()
    assert list(schema["properties"]) == fields
    assert schema["additionalProperties"] is True
    assert schema["required"] == ["verdict", "reviewer", "reason"]
    answer = {"verdict": "approve", "reviewer": "ada", "reason": "sound", "signature": "S"}
    assert shown(**answer).signature == "S"  # of the command
