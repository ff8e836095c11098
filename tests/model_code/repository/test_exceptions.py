import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from model_code.repository.audit import AuditLog
from model_code.repository.exceptions import (
    CLOSED,
    RENEWED,
    ApprovedException,
    problem,
    reasons_for,
    serving_exception,
)

TODAY = dt.date(2000, 1, 31)


def exception(version: int = 1, owner: str = "ada", expires: str = "2000-02-10") -> dict[str, Any]:
    return {
        "version": version,
        "exception": {"reasons": ["no baseline"], "owner": owner, "expires": expires},
    }


def found(tmp_path: Path, *events: tuple[str, dict[str, Any]]) -> ApprovedException | None:
    log = AuditLog(tmp_path / "audit.jsonl")
    for number, (event, facts) in enumerate(events):
        log.append(event, f"{event}-{number}", facts)
    return serving_exception(log.read())


@pytest.mark.parametrize(
    ("verdict", "drift", "not_comparable", "reasons"),
    [
        ("pass", {"spread": 0.25}, None, ()),
        ("no baseline", {}, None, ("no baseline",)),
        ("not comparable", {}, "a new label", ("not comparable (a new label)",)),
        ("too few events", {}, None, ("too few events",)),
        ("pass", {"spread": 0.2, "b": 0.3, "a": 9.0}, None, ("large drift of a, b",)),
        ("no baseline", {"a": 0.3}, None, ("no baseline", "large drift of a")),
    ],
)
def test_what_needs_an_exception(
    verdict: str, drift: dict[str, float], not_comparable: str | None, reasons: tuple[str, ...]
) -> None:
    assert reasons_for(verdict, drift, not_comparable) == reasons


@pytest.mark.parametrize(
    ("owner", "expires", "message"),
    [
        ("ada", "2000-01-31", None),
        ("ada", "2000-03-01", None),
        (" ", "2000-02-10", "name its owner"),
        ("ada", "", "say until when it holds, as YYYY-MM-DD, not ''"),
        ("ada", "next week", "not 'next week'"),
        ("ada", "2000-01-30", "between today and 30 days from now, not 2000-01-30"),
        ("ada", "2000-03-02", "between today and 30 days from now, not 2000-03-02"),
    ],
)
def test_an_exception_needs_an_owner_and_an_end(
    owner: str, expires: str, message: str | None
) -> None:
    refused = problem(("no baseline",), owner, expires, TODAY, longest_days=30)
    assert refused is None if message is None else message in str(refused)
    assert problem((), owner, expires, TODAY, longest_days=30) is None


def test_it_holds_through_its_last_day() -> None:
    known = ApprovedException(
        version=7, reasons=("no baseline",), owner="ada", expires=dt.date(2000, 2, 10)
    )
    assert not known.lapsed(dt.date(2000, 2, 10))
    assert known.lapsed(dt.date(2000, 2, 11))
    assert (known.soon(dt.date(2000, 2, 3)), known.soon(dt.date(2000, 2, 4))) == (False, True)
    assert known.line(TODAY) == "version 7, no baseline: owner ada, lapses after 2000-02-10"
    assert known.line(dt.date(2000, 2, 11)).endswith("lapsed on 2000-02-10")


def test_the_exception_of_the_serving_version_counts(tmp_path: Path) -> None:
    approved = ("approved", exception())
    assert found(tmp_path / "a", approved) is None  # not serving yet
    serves = (approved, ("promoted", {"version": 1}))
    known = found(tmp_path / "b", *serves)
    assert known is not None
    assert (known.version, known.owner, known.reasons) == (1, "ada", ("no baseline",))
    later = (*serves, ("approved", {"version": 2}), ("promoted", {"version": 2}))
    assert found(tmp_path / "c", *later) is None
    assert found(tmp_path / "d", *later, ("rolled back", {"version": 1})) == known


def test_renewed_and_closed(tmp_path: Path) -> None:
    serves = (("approved", exception()), ("promoted", {"version": 1}))
    renewed = (*serves, (RENEWED, exception(owner="grace", expires="2000-05-01")))
    known = found(tmp_path / "a", *renewed)
    assert known is not None
    assert (known.owner, known.expires) == ("grace", dt.date(2000, 5, 1))
    closed = (*renewed, (CLOSED, {"version": 1}))
    assert found(tmp_path / "b", *closed) is None
    assert found(tmp_path / "c", *closed, ("rolled back", {"version": 1})) is None
