import datetime as dt
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from model_code.errors import PromotionError
from model_code.repository.manifest import Manifest
from model_code.settings import MODEL_NAME, PromotionSpec, Settings
from tasks.promotion.open_promotion import _require_promotable, take_over
from tasks.promotion.records import Opened
from tasks.runs import mlflow_runs
from tests.support.serving import staged


def test_a_promotion_suspended_by_an_earlier_version_is_refused() -> None:
    stored = {"version": 1, "mlflow_run_id": "m"}
    with pytest.raises(PromotionError, match="earlier version of Tickline"):
        take_over(Settings(), stored)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdict", "simulated", "spec", "message"),
    [
        ("pass", False, {}, ""),
        ("not comparable", False, {}, "was not compared with the champion"),
        ("not comparable", False, {"not_comparable": "a new label"}, ""),
        ("not comparable", True, {"not_comparable": "a new label"}, "uses simulated data"),
        ("not comparable", True, {"allow_simulated": True}, "was not compared"),
        ("not comparable", True, {"allow_simulated": True, "not_comparable": "a rehearsal"}, ""),
        ("pass", True, {"not_comparable": "a reason"}, "uses simulated data"),
        ("pass", True, {"allow_simulated": True}, ""),
        ("fail", False, {"not_comparable": "a reason"}, "failed its gate"),
        ("too few events", False, {"not_comparable": "a reason"}, "was not accepted by its gate"),
    ],
)
def test_a_version_that_was_not_compared_is_promoted_for_a_reason_only(
    verdict: str, simulated: bool, spec: dict[str, Any], message: str, tmp_path: Path
) -> None:
    promotable = verdict == "pass" and not simulated
    folder = staged(
        tmp_path / "staging", 3, verdict=verdict, simulated=simulated, promotable=promotable
    )
    refused = pytest.raises(PromotionError, match=message) if message else nullcontext()
    with refused:
        _require_promotable(Manifest.load(folder), PromotionSpec(**spec))


def test_a_suspended_promotion_finds_its_candidate_in_the_home_that_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened(
        version=3,
        started_by="ada",
        candidate=f"/former/staging/{MODEL_NAME}/3",  # as earlier Ticklines stored it
        mlflow_run_id="m",
        opened_at=dt.datetime.now(dt.UTC),
    )
    monkeypatch.setattr(mlflow_runs, "client", lambda _: mock.MagicMock())
    monkeypatch.setattr(mlflow_runs, "set_tags", lambda *_: None)
    found = take_over(Settings(home=tmp_path), opened)
    assert found.candidate == str(tmp_path / "staging" / MODEL_NAME / "3")
    assert found.mlflow_run_id == "m"
