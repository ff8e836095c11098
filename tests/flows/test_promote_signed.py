"""Signed promotions: who approves proves who they are, and everything is compared afterwards."""

from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun

from flows.runs import promotions
from model_code.errors import IntegrityError, PromotionError
from model_code.repository.audit import AuditLog
from model_code.repository.decisions import Subject
from model_code.repository.manifest import MANIFEST_FILE, Manifest
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings
from tasks.promotion.promotion_runs import open_runs
from tasks.promotion.records import Promoted
from tasks.promotion.verify_audit import verify_audit
from tasks.runs.aliases import Aliases
from tests.support.cli import tickline
from tests.support.desk import EXCEPTION, answer, champion, events, start
from tests.support.keys import make_key, signer
from tests.support.policy import write_policy
from tests.support.promotion import PATIENT


def found(desk: Settings) -> set[tuple[str, str]]:
    """Where `tickline audit --verify` finds a difference, with the beginning of what it says."""
    return {(one.where, one.what[:24]) for one in verify_audit(desk).differences}


def approve(desk: Settings, version: int, key: Path) -> Promoted:
    outcome = promotions.decide(
        desk, str(version), "approve", key.name, "sound", key=key, **EXCEPTION
    )
    assert isinstance(outcome, Promoted)
    return outcome


def test_a_decision_without_the_reviewers_own_signature_does_not_count(
    desk: Settings, tmp_path: Path
) -> None:
    ada, grace = make_key(tmp_path, "ada"), make_key(tmp_path, "grace")
    write_policy(desk, signatures="required", allowed_signers=signer(ada) + signer(grace))
    run = start(desk, 1)

    for key, why in ((None, "a signature is required"), (grace, "does not give to ada")):
        with pytest.raises(PromotionError, match=why):  # the command refuses at once
            promotions.decide(desk, "1", "approve", "ada", "sound", key=key, **EXCEPTION)
    with pytest.raises(PromotionError, match="the decision was not signed"):
        promotions.decide(
            desk, "1", "approve", "ada", "sound", key=ada, agree=lambda *_: False, **EXCEPTION
        )

    # the form can hold anything: the flow refuses it and asks again
    subject = promotions.subject_of(run)
    other = subject.model_copy(update={"engine_sha256": "0" * 64})
    forged = {
        "no signature": ("", ""),
        "another engine": (other.text("approve", "ada", "sound"), "a signature"),
        "no signature of this text": (subject.text("approve", "ada", "sound"), "a signature"),
    }
    for signed, signature in forged.values():
        answered = answer(
            run, verdict="approve", reviewer="ada", reason="sound", signed=signed,
            signature=signature, **EXCEPTION,
        )  # fmt: skip
        assert isinstance(answered, FlowRun)
        run = answered
        assert run.state is not None
        assert run.state.is_paused()
    assert champion(desk) is None
    assert events(desk) == ["started"]

    shown: list[tuple[Subject, str]] = []

    def agree(*what: Any) -> bool:
        shown.append(what)
        return True

    rejected = promotions.decide(desk, "1", "reject", "ada", "not today", key=ada, agree=agree)
    assert isinstance(rejected, Promoted)
    assert rejected.outcome == "rejected"
    assert shown[0][0] == subject, "what is signed is shown before"
    record = AuditLog(desk.audit_file).read()[-1]
    assert (record.event, record.facts["signed"]) == ("rejected", shown[0][1])
    assert verify_audit(desk).differences == ()


def test_a_signed_promotion_is_verified_everywhere_and_after_each_change(
    desk: Settings, tmp_path: Path
) -> None:
    ada, grace = make_key(tmp_path, "ada"), make_key(tmp_path, "grace")
    keys = signer(ada) + signer(grace)
    loosest = {"max_disagreement": 0.9}
    policy = write_policy(desk, signatures="required", allowed_signers=keys, loosest=loosest)
    start(desk, 1)
    assert approve(desk, 1, ada).champion == 1
    start(desk, 2, spec=PATIENT.model_copy(update={"max_disagreement": 0.9}))
    assert "loosened: max_disagreement 0.9" in form(desk, 2)
    assert approve(desk, 2, ada).champion == 2

    audit, place = AuditLog(desk.audit_file), ServingRepository(desk.serving_repository)
    record = next(one for one in reversed(audit.read()) if one.event == "approved")
    assert record.facts["policy_sha256"] == policy.sha256
    assert record.facts["loosened"] == ["max_disagreement 0.9, the policy's limit is 0.2"]
    approval = Manifest.load(place.folder(2)).approval
    assert approval is not None
    assert (approval.signed, approval.signature) == (
        record.facts["signed"],
        record.facts["signature"],
    )
    verified = verify_audit(desk)
    assert (verified.signatures, verified.versions, verified.differences) == (2, (1, 2), ())
    assert "no difference: 6 records, 2 signatures, 2 promoted" in tickline("audit", "--verify")

    # MLflow's tags
    tags = Aliases(desk).tags(2)
    for name in ("approved_by", "engine_sha256", "audit_sha256"):
        Aliases(desk).tag(2, {name: "mallory"})
        ((where, what),) = found(desk)
        assert (where, what.startswith(f"tag {name} is mallory"[:24])) == ("MLflow version 2", True)
        Aliases(desk).tag(2, {name: tags[name]})
    Aliases(desk).move(1, None)
    assert {where for where, _ in found(desk)} == {"serving version"}
    Aliases(desk).move(2, 1)

    # the folders that served
    manifest = place.folder(1) / MANIFEST_FILE
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b'"reviewer": "ada"', b'"reviewer": "grace"'))
    assert {where for where, _ in found(desk)} == {"folder of version 1"}
    said = tickline("audit", "--verify", status=1)
    assert "folder of version 1" in said
    assert "another reviewer" in said
    with pytest.raises(IntegrityError, match="another reviewer"):
        promotions.roll_back(desk, None, "bob", "it misbehaves")
    manifest.write_bytes(whole)
    hidden = place.folder(1).rename(tmp_path / "hidden")
    assert found(desk) == {("folder of version 1", f"missing in {place.archive}"[:24])}
    hidden.rename(place.home / "1")

    # the reviewers' keys
    write_policy(desk, signatures="required", allowed_signers=signer(grace), reviewers=["grace"])
    assert {where for where, _ in found(desk)} == {
        "audit line 2", "audit line 5", "folder of version 1", "folder of version 2",
    }  # fmt: skip
    with pytest.raises(IntegrityError, match="which the policy does not give to ada"):
        promotions.roll_back(desk, None, "bob", "it misbehaves")
    assert champion(desk) == 2
    policy.path.unlink()
    assert ("policy", f"missing: {policy.path}"[:24]) in found(desk)
    former = signer(ada, 'valid-before="20990101"') + signer(grace)
    write_policy(desk, signatures="required", allowed_signers=former, reviewers=["grace"])
    assert found(desk) == set()

    # the audit file
    text = desk.audit_file.read_text()
    desk.audit_file.write_text(text.replace('"reason":"sound"', '"reason":"other"', 1))
    assert ("audit line 2", "the audit file is broken"[:24]) in found(desk)
    desk.audit_file.write_text("".join(text.splitlines(keepends=True)[:3]))  # cut at the end
    assert {where for where, _ in found(desk)} == {
        "MLflow version 2", "folder of version 2", "serving version",
    }  # fmt: skip
    desk.audit_file.unlink()
    assert ("audit file", f"missing: {desk.audit_file}"[:24]) in found(desk)
    desk.audit_file.write_text(text)

    assert promotions.roll_back(desk, None, "bob", "it misbehaves").version == 1
    assert champion(desk) == 1
    assert found(desk) == set()


def test_the_policy_that_changes_between_evidence_and_decision_voids_the_approval(
    desk: Settings,
) -> None:
    waiting = start(desk, 1)
    write_policy(desk, reviewers=["ada", "mallory"])
    with pytest.raises(PromotionError, match="was changed after the evidence was shown"):
        promotions.decide(desk, "1", "approve", "mallory", "sound", **EXCEPTION)
    form: dict[str, Any] = {"verdict": "approve", "reviewer": "mallory", "reason": "sound"}
    answered = answer(waiting, **form, **EXCEPTION)
    assert isinstance(answered, FlowRun), "the form is asked for again"
    rejected = promotions.decide(desk, "1", "reject", "ada", "another policy")
    assert isinstance(rejected, Promoted)
    assert rejected.outcome == "rejected"
    assert champion(desk) is None


def test_a_promotion_that_asks_for_more_than_the_policy_allows_is_refused_at_once(
    desk: Settings,
) -> None:
    asked = PATIENT.model_copy(update={"max_disagreement": 0.9})
    with pytest.raises(
        PromotionError, match=r"max_disagreement 0\.9 is asked, the policy allows 0\.2"
    ):
        start(desk, 1, spec=asked)
    assert open_runs() == []
    assert not desk.audit_file.exists()


def form(desk: Settings, version: int) -> str:
    """What the form says above its fields."""
    from prefect import get_client

    run = next(one for one in open_runs() if one.parameters["version"] == version)
    assert run.state is not None
    keyset = run.state.state_details.run_input_keyset
    assert keyset is not None
    with get_client(sync_client=True) as client:
        content = client.read_flow_run_input(run.id, keyset["description"])
    return str(content)
