import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from model_code.errors import PromotionError
from model_code.repository.approved import exception_problem
from model_code.repository.audit import AuditLog
from model_code.repository.exceptions import ApprovedException
from model_code.repository.policy import PolicyFile
from model_code.repository.signatures import sign
from model_code.settings import Settings
from model_code.storage.serving import require_here, share_serving
from tasks.promotion import exceptions
from tests.support.keys import make_key, signer
from tests.support.policy import write_policy

TODAY = dt.date(2000, 2, 1)
BY_ADA: dict[str, Any] = {"reviewer": "ada", "reason": "a week of live figures"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Version 7 serves; its exception holds until 10 February 2000."""
    found = Settings(home=tmp_path).resolved()
    write_policy(found, exception_days=30)
    known = ApprovedException(
        version=7, reasons=("no baseline",), owner="grace", expires=dt.date(2000, 2, 10)
    )
    log = AuditLog(found.audit_file)
    log.append("approved", "a", {"version": 7} | known.facts())
    log.append("promoted", "b", {"version": 7})
    monkeypatch.setattr(exceptions, "today", lambda: TODAY)
    return found


def test_a_lapsed_exception_blocks_promotions_until_it_is_renewed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    exceptions.require_none_lapsed(settings)
    monkeypatch.setattr(exceptions, "today", lambda: dt.date(2000, 2, 11))
    with pytest.raises(PromotionError, match="has lapsed: version 7, no baseline: owner grace"):
        exceptions.require_none_lapsed(settings)
    renewed = exceptions.renew(settings, 7, owner="", expires="2000-03-01", **BY_ADA)
    assert (renewed.owner, renewed.expires) == ("grace", dt.date(2000, 3, 1))
    exceptions.require_none_lapsed(settings)
    assert "lapses after 2000-03-01" in exceptions.exception_line(settings)
    record = AuditLog(settings.audit_file).read()[-1]
    assert (record.event, record.facts["reviewer"]) == ("exception renewed", "ada")


def test_on_another_host_the_policy_of_the_serving_host_counts(tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    serving, other = (
        Settings(home=tmp_path / name, store=store).resolved() for name in ("serving", "other")
    )
    write_policy(serving)
    require_here(serving)
    assert share_serving(serving) == ""
    known = ApprovedException(
        version=7, reasons=("no baseline",), owner="grace", expires=exceptions.today()
    )
    log = AuditLog.of(serving)
    log.append("approved", "a", {"version": 7} | known.facts())
    log.append("promoted", "b", {"version": 7})
    last = exceptions.today() + dt.timedelta(days=2)
    exceptions.renew(other, 7, owner="", expires=f"{last}", **BY_ADA)
    assert f"lapses after {last}" in exceptions.exception_line(serving)
    write_policy(serving, reviewers=["grace"])
    assert share_serving(serving) == ""
    with pytest.raises(PromotionError, match="'ada' is not one of the policy's"):
        exceptions.close(other, 7, **BY_ADA)


def test_a_closed_exception_blocks_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    exceptions.close(settings, 7, **BY_ADA)
    assert exceptions.exception_line(settings) == ""
    monkeypatch.setattr(exceptions, "today", lambda: dt.date(2001, 1, 1))
    exceptions.require_none_lapsed(settings)
    with pytest.raises(PromotionError, match="the serving version is not 7, or it has no"):
        exceptions.close(settings, 7, **BY_ADA)


@pytest.mark.parametrize(
    ("version", "changes", "message"),
    [
        (6, {}, "the serving version is not 6"),
        (7, {"reviewer": "mallory"}, "'mallory' is not one of the policy's"),
        (7, {"reason": " "}, "a reason is required"),
        (7, {"expires": "2000-01-31"}, "between today and 30 days from now"),
        (7, {"expires": "2000-03-03"}, "between today and 30 days from now"),
        (7, {"expires": "soon"}, "as YYYY-MM-DD, not 'soon'"),
    ],
)
def test_a_renewal_that_does_not_count_changes_nothing(
    settings: Settings, version: int, changes: dict[str, Any], message: str
) -> None:
    before = settings.audit_file.read_bytes()
    with pytest.raises(PromotionError, match=message):
        exceptions.renew(
            settings, version, **({"owner": "", "expires": "2000-03-01"} | BY_ADA | changes)
        )
    assert settings.audit_file.read_bytes() == before


def test_a_policy_can_require_a_signature(settings: Settings, tmp_path: Path) -> None:
    ada, grace = make_key(tmp_path, "ada"), make_key(tmp_path, "grace")
    signers = signer(ada) + signer(grace)
    write_policy(settings, signatures="required", allowed_signers=signers)
    before = settings.audit_file.read_bytes()
    with pytest.raises(PromotionError, match="the policy requires a signature"):
        exceptions.close(settings, 7, **BY_ADA)
    with pytest.raises(PromotionError, match="which the policy does not give to ada"):
        exceptions.close(settings, 7, **BY_ADA, sign=lambda text: sign(text, grace))
    assert settings.audit_file.read_bytes() == before
    exceptions.close(settings, 7, **BY_ADA, sign=lambda text: sign(text, ada))
    record = AuditLog(settings.audit_file).read()[-1]
    assert 'reason: "a week of live figures"' in str(record.facts["signed"])
    policy = PolicyFile.load(settings.serving_repository).policy
    assert exception_problem(record, policy) is None
    longer = {"reasons": ["no baseline"], "owner": "grace", "expires": "2099-01-01"}
    for changes, wrong in (
        ({"exception": longer}, "another text was signed"),
        ({"reviewer": "grace"}, "another text was signed"),
        ({"signature": ""}, "it is not signed"),
        ({"exception": None}, "the record lacks what was signed"),
    ):
        forged = record.model_copy(update={"facts": record.facts | changes})
        assert wrong in str(exception_problem(forged, policy))
