from pathlib import Path

import pytest

from model_code.settings import Settings
from tasks.promotion.decide import problem


def said(tmp_path: Path, reviewer: str, started_by: str, verdict: str = "approve") -> str | None:
    settings = Settings.model_validate({"home": tmp_path, "reviewers": ("ada", "grace")})
    return problem(verdict, reviewer, "sound", started_by, settings)


def test_another_reviewer_decides(tmp_path: Path) -> None:
    assert said(tmp_path, "ada", "grace") is None
    assert said(tmp_path, " ada ", "bob") is None
    assert said(tmp_path, "ada", "ada", "reject") is None, "one's own may be rejected"


@pytest.mark.parametrize("started_by", ["ada", " ada", "ada ", "Ada", "ADA"])
def test_nobody_approves_their_own_promotion_however_the_name_is_written(
    tmp_path: Path, started_by: str
) -> None:
    assert "ada started this promotion" in str(said(tmp_path, "ada", started_by))
