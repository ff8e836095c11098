"""A folder serves only with an approval that the audit file has, and that is signed if it must."""

from pathlib import Path
from typing import Any

import pytest

from model_code.errors import ConfigError, IntegrityError, PromotionError
from model_code.repository.approved import require_approved
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.repository.decisions import Subject
from model_code.repository.manifest import MANIFEST_FILE, Approval, Manifest
from model_code.repository.policy import PolicyFile
from model_code.repository.serving import ServingRepository
from model_code.repository.signatures import sign
from model_code.settings import Settings
from tests.support.keys import make_key, signer
from tests.support.policy import write_policy
from tests.support.serving import APPROVAL, staged


class Desk:
    """A serving repository, its audit file, its policy and ada's key."""

    def __init__(self, folder: Path, signatures: str = "required") -> None:
        self.folder, self.settings = folder, Settings(home=folder)
        self.key = make_key(folder, "ada")
        self.grace = make_key(folder, "grace")
        self.policy = self.written(signatures=signatures)
        self.audit = AuditLog(self.settings.audit_file)
        self.place = ServingRepository(self.settings.serving_repository)

    def written(self, **changes: Any) -> PolicyFile:
        keys = {"allowed_signers": signer(self.key) + signer(self.grace)}
        return write_policy(self.settings, **(keys | changes))

    def approve(self, version: int, *, signed: bool = True, **changes: Any) -> AuditRecord:
        """Publish a version with its approval, and write the record; `changes` are of its facts."""
        candidate = staged(self.settings.staging_repository, version)
        manifest, flow_run_id = Manifest.load(candidate), f"run-{version}"
        subject = Subject(
            version=version, manifest=manifest.identity, engine_sha256=manifest.engine_sha256,
            config_sha256=manifest.config_sha256, policy_sha256=self.policy.sha256,
            verdict="pass", flow_run_id=flow_run_id, started_by="bob",
            loosened=("max_disagreement 0.4, the policy's limit is 0.2",),
        )  # fmt: skip
        text = subject.text("approve", "ada", "sound\nat length") if signed else ""
        signature = sign(text, self.key) if signed else ""
        approval = Approval(
            reviewer="ada", at="2026-01-01T00:00:00+00:00", reason="sound\nat length",
            started_by="bob", flow_run_id=flow_run_id, policy_sha256=self.policy.sha256,
            signed=text, signature=signature,
        )  # fmt: skip
        self.place.publish(candidate, approval)
        facts = subject.model_dump(mode="json") | {
            "reviewer": "ada", "reason": "sound\nat length", "signed": text, "signature": signature,
            "signatures": self.policy.policy.signatures,
        }  # fmt: skip
        return self.audit.append("approved", f"decided-{flow_run_id}", facts | changes)

    def require(self, version: int) -> AuditRecord:
        policy = PolicyFile.find(self.settings.serving_repository)
        return require_approved(self.place, version, self.audit, policy)

    def rewrite(self, version: int, **approval: Any) -> None:
        """Change the approval in a folder's manifest."""
        path = self.place.folder(version) / MANIFEST_FILE
        manifest = Manifest.model_validate_json(path.read_bytes())
        assert manifest.approval is not None
        changed = manifest.approval.model_copy(update=approval)
        path.write_bytes(manifest.model_copy(update={"approval": changed}).text())


def test_a_signed_approval_counts(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    record = desk.approve(1)
    assert desk.require(1) == record


@pytest.mark.parametrize(
    ("approval", "what"),
    [
        ({"reviewer": "grace"}, "reviewer"),
        ({"reason": "other"}, "reason"),
        ({"signature": ""}, "signature"),
        ({"policy_sha256": "0" * 64}, "policy_sha256"),
    ],
)
def test_a_folder_with_another_approval_than_the_audit_file_is_refused(
    approval: dict[str, Any], what: str, tmp_path: Path
) -> None:
    desk = Desk(tmp_path)
    desk.approve(1)
    desk.rewrite(1, **approval)
    with pytest.raises(IntegrityError, match=f"the audit file have another {what}"):
        desk.require(1)


def test_a_folder_whose_approval_is_not_in_the_audit_file_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.place.publish(staged(desk.settings.staging_repository, 1), APPROVAL)
    with pytest.raises(PromotionError, match="not in the audit file: the audit file is missing"):
        desk.require(1)
    desk.approve(2)
    with pytest.raises(PromotionError, match="not in the audit file: it has no record"):
        desk.require(1)
    desk.rewrite(1, flow_run_id="run-2")  # another version's approval
    with pytest.raises(PromotionError, match="not in the audit file"):
        desk.require(1)


def test_an_approved_folder_with_other_bytes_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.approve(1)
    path = desk.place.folder(1) / MANIFEST_FILE
    manifest = Manifest.model_validate_json(path.read_bytes())
    path.write_bytes(manifest.model_copy(update={"verdict": "no baseline"}).text())
    with pytest.raises(IntegrityError, match="another manifest"):
        desk.require(1)


def test_a_record_with_another_text_or_signer_than_was_signed_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.approve(1, verdict="no baseline")
    with pytest.raises(IntegrityError, match="'verdict: pass' instead of 'verdict: no baseline'"):
        desk.require(1)
    desk.approve(2, loosened=[])
    with pytest.raises(IntegrityError, match="another text was signed"):
        desk.require(2)
    desk.approve(3)
    desk.written(allowed_signers=signer(desk.grace), reviewers=["grace"])
    with pytest.raises(IntegrityError, match="which the policy does not give to ada"):
        desk.require(3)


def test_a_former_reviewers_key_with_an_end_verifies_what_it_signed_before(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.approve(1)
    keys = signer(desk.key, 'valid-before="20990101"') + signer(desk.grace)
    desk.written(allowed_signers=keys, reviewers=["grace"])
    assert desk.require(1).facts["reviewer"] == "ada"
    keys = signer(desk.key, 'valid-before="20200101"') + signer(desk.grace)
    desk.written(allowed_signers=keys, reviewers=["grace"])
    with pytest.raises(IntegrityError, match="key has expired"):
        desk.require(1)


def test_an_unsigned_approval_counts_only_where_signatures_were_optional(tmp_path: Path) -> None:
    strict = Desk(tmp_path / "strict")
    strict.approve(1, signed=False)
    with pytest.raises(IntegrityError, match="it is not signed"):
        strict.require(1)
    lenient = Desk(tmp_path / "lenient", signatures="optional")
    lenient.approve(1, signed=False)
    assert lenient.require(1)
    lenient.written(signatures="required")  # it was approved before
    assert lenient.require(1)


def test_an_approval_of_an_earlier_version_counts_if_the_audit_file_has_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    old = ("reviewer", "reason", "started_by", "flow_run_id")

    def approve_as_before(version: int) -> None:
        candidate = staged(desk.settings.staging_repository, version)
        manifest = Manifest.load(candidate)
        desk.place.publish(candidate, APPROVAL.model_copy(update={"flow_run_id": f"f{version}"}))
        hashes = manifest.model_dump(include={"engine_sha256", "config_sha256"})
        approval = Manifest.load(desk.place.folder(version)).approval
        assert approval is not None
        facts = {"version": version, "manifest": manifest.identity, **hashes}
        facts |= approval.model_dump(include=set(old))
        desk.audit.append("approved", f"decided-f{version}", facts)

    approve_as_before(1)
    assert require_approved(desk.place, 1, desk.audit, None), "no policy was there then"
    assert desk.require(1)
    desk.approve(2)
    assert desk.require(1)
    approve_as_before(3)  # a record that looks old, after the first that names a policy
    with pytest.raises(IntegrityError, match="it is not signed"):
        desk.require(3)


def test_without_its_policy_nothing_can_be_verified(tmp_path: Path) -> None:
    desk = Desk(tmp_path, signatures="optional")
    desk.approve(1, signed=False)
    desk.policy.path.unlink()
    with pytest.raises(ConfigError, match="the policy is missing under which"):
        desk.require(1)


def test_a_broken_chain_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.approve(1)
    text = desk.audit.path.read_text()
    desk.audit.path.write_text(text.replace('"verdict":"pass"', '"verdict":"fail"'))
    with pytest.raises(IntegrityError, match="the audit file is broken"):
        desk.require(1)
