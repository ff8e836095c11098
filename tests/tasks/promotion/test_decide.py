from pathlib import Path

import pytest

from model_code.repository.decisions import Subject
from model_code.repository.policy import PolicyFile
from model_code.settings import Settings
from tasks.promotion.decide import Decision, form_of, form_text, problem, text_of
from tasks.promotion.records import Shown
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
    ("exception", "fields"),
    [
        (True, ["verdict", "reviewer", "reason", "exception"]),
        (False, ["verdict", "reviewer", "reason"]),
    ],
)
def test_the_form_has_no_more_fields_than_a_reviewer_fills_in(
    exception: bool, fields: list[str]
) -> None:
    shown = form_of(("ada", "grace"), exception=exception).with_initial_data(description="text")
    schema = shown.model_json_schema()
    assert list(schema["properties"]) == fields
    assert schema["properties"]["reviewer"]["enum"] == ["ada", "grace"]
    assert schema["additionalProperties"] is True
    assert schema["required"] == ["verdict", "reviewer", "reason"]
    answer = {"verdict": "approve", "reviewer": "ada", "reason": "sound", "signature": "S"}
    assert shown(**answer).signature == "S"  # of the command


def test_another_name_is_no_choice_but_the_command_may_say_who_is_missing() -> None:
    assert "enum" not in Decision.model_json_schema()["properties"]["reviewer"]
    one, other = form_of(("ada",), exception=False), form_of(("grace",), exception=False)
    assert one.model_json_schema()["properties"]["reviewer"]["enum"] == ["ada"]
    assert other.model_json_schema()["properties"]["reviewer"]["enum"] == ["grace"]


@pytest.mark.parametrize(
    ("text", "owner", "expires"),
    [
        ("grace 2027-01-31", "grace", "2027-01-31"),
        (" grace hopper, 2027-01-31 ", "grace hopper", "2027-01-31"),
        ("grace until 2027-01-31", "grace", "2027-01-31"),
        ("grace", "", "grace"),
        (" ", "", ""),
    ],
)
def test_the_exceptions_field_has_its_owner_and_last_day(
    text: str, owner: str, expires: str
) -> None:
    found = Decision.model_validate(
        {"verdict": "approve", "reviewer": "ada", "reason": "sound", "exception": text}
    )
    assert (found.owner, found.expires) == (owner, expires)


def test_what_the_command_says_of_an_exception_counts() -> None:
    fields = {"verdict": "approve", "reviewer": "ada", "reason": "sound"}
    fields |= {"exception": "bob 2027-01-01", "owner": "grace", "expires": "2027-01-31"}
    found = Decision.model_validate(fields)
    assert (found.owner, found.expires) == ("grace", "2027-01-31")


def test_the_text_begins_with_what_was_wrong_and_ends_with_the_hashes() -> None:
    shown = Shown(
        identity="1" * 64, engine_sha256="2" * 64, config_sha256="3" * 64, engine="torch-fp32",
        champion=None, verdict_json="{}", simulated=False, page_url="", run_url="",
        summary="Promote?", policy_sha256="4" * 64,
    )  # fmt: skip
    asked, again = (
        form_text(7, shown, "optional", wrong).split("\n\n") for wrong in (None, "no reason")
    )
    assert asked[0] == "Promote?"
    assert "recorded as unsigned" in asked[1]
    assert "`tickline approve 7 " in asked[1]
    assert asked[-1].startswith("sha256: manifest `1111")
    assert asked[-1].endswith(f"policy `{'4' * 64}`")
    assert again == ["**The last input was not valid: no reason.**", *asked]
    signed = form_text(7, shown, "required", None).split("\n\n")
    assert signed[:2] == ["**This form alone does not count: sign, see below.**", "Promote?"]
    assert signed[2].startswith("To sign: `tickline approve 7 ")
