import datetime as dt

import pytest

from model_code.errors import PromotionError
from model_code.repository.audit import AuditLog
from model_code.repository.exceptions import ApprovedException
from model_code.settings import Settings
from tests.support.cli import tickline
from tests.support.policy import write_policy


def test_shown_renewed_and_closed(home: Settings) -> None:
    assert "approved without an exception" in tickline("exceptions")
    write_policy(home)
    today = dt.datetime.now(dt.UTC).date()
    known = ApprovedException(
        version=7, reasons=("no baseline",), owner="grace", expires=today - dt.timedelta(days=1)
    )
    log = AuditLog(home.audit_file)
    log.append("approved", "a", {"version": 7} | known.facts())
    log.append("promoted", "b", {"version": 7})
    assert f"version 7, no baseline: owner grace, lapsed on {known.expires}" in tickline(
        "exceptions"
    )
    words = ("--reviewer", "ada", "--reason", "live figures are good")
    later = f"{today + dt.timedelta(days=60)}"
    said = tickline("exceptions", "renew", "7", "--expires", later, "--owner", "ada", *words)
    assert f"owner ada, lapses after {later}" in said
    assert "closed: no baseline, version 7" in tickline("exceptions", "close", "7", *words)
    with pytest.raises(PromotionError, match="the serving version is not 7, or it has no"):
        tickline("exceptions", "close", "7", *words)
