"""Signatures by real SSH keys."""

import datetime as dt
from pathlib import Path

import pytest

from model_code.errors import ConfigError, PromotionError
from model_code.repository.policy import Policy
from model_code.repository.signatures import sign, signature_problem
from tests.support.keys import make_key, signer

TEXT = "tickline decision 1\nversion: 7\n"
NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)


def problem(policy: Policy, signature: str, reviewer: str = "ada", text: str = TEXT) -> str | None:
    return signature_problem(policy, reviewer, text, signature, NOW)


def policy(*lines: str) -> Policy:
    return Policy(reviewers=("ada", "grace"), allowed_signers="".join(lines))


def test_a_signature_counts_for_its_signer_and_its_text_only(tmp_path: Path) -> None:
    ada, grace = make_key(tmp_path, "ada"), make_key(tmp_path, "grace")
    found = policy(signer(ada), signer(grace))
    signature = sign(TEXT, ada)
    assert problem(found, signature) is None
    assert "does not fit the text that ada must sign" in str(
        problem(found, signature, text=TEXT.replace("7", "8"))
    )
    assert "which the policy does not give to grace" in str(problem(found, signature, "grace"))
    assert "which the policy does not give to ada" in str(problem(found, sign(TEXT, grace)))
    assert "does not fit the text" in str(problem(found, "no signature"))


def test_a_removed_key_does_not_count(tmp_path: Path) -> None:
    signature = sign(TEXT, make_key(tmp_path, "ada"))
    assert "which the policy does not give to ada" in str(problem(policy(), signature))


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ('namespaces="tickline"', ""),
        ('namespaces="git"', 'not permitted for use in signature namespace "tickline"'),
        ('valid-before="20260601120001"', ""),
        ('valid-before="20260601"', "key has expired"),
        ('valid-after="20260602"', "key is not yet valid"),
    ],
)
def test_a_key_counts_within_its_time_and_purpose(
    options: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")  # dates of allowed_signers are UTC all the same
    ada = make_key(tmp_path, "ada")
    said = problem(policy(signer(ada, options)), sign(TEXT, ada))
    assert wrong in (said or "")
    assert (said is None) == (not wrong)


def test_a_signature_for_another_purpose_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = make_key(tmp_path, "ada")
    with monkeypatch.context() as patch:
        patch.setattr("model_code.repository.signatures.NAMESPACE", "git")
        signature = sign(TEXT, ada)
    assert "does not fit the text" in str(problem(policy(signer(ada, "")), signature))


def test_a_key_that_cannot_sign_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromotionError, match="there is no such key"):
        sign(TEXT, tmp_path / "none")
    broken = make_key(tmp_path, "ada")
    broken.write_text("no key\n")
    with pytest.raises(PromotionError, match="the key did not sign: ") as caught:
        sign(TEXT, broken)
    assert caught.value.where == str(broken)


def test_without_ssh_keygen_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = make_key(tmp_path, "ada")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="ssh-keygen is not installed"):
        sign(TEXT, ada)
