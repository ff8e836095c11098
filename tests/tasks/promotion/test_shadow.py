"""Whose threshold decides what, in shadow and canary and in `tickline predict`."""

import datetime as dt
from pathlib import Path

import pytest

from flows.cli.predict import _threshold
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.candidate import CANDIDATE_NAME
from model_code.settings import MODEL_NAME, Settings
from tasks.promotion.records import Opened
from tasks.promotion.shadow import thresholds_of
from tests.support.serving import APPROVAL, staged

CHAMPION = Target(model=MODEL_NAME, version=1)
CANDIDATE = Target(model=CANDIDATE_NAME, version=2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Version 1 serves from 0.25; version 2 is staged and decides from 0.125."""
    found = Settings(home=tmp_path).resolved()
    serving = ServingRepository(found.serving_repository)
    serving.publish(staged(found.staging_repository, 1, threshold=0.25), APPROVAL)
    staged(found.staging_repository, 2, threshold=0.125)
    Route(champion=CHAMPION).save(serving.route_file)
    return found


def test_champion_and_candidate_decide_at_their_own_thresholds(settings: Settings) -> None:
    opened = Opened(
        version=2,
        started_by="bob",
        candidate=str(settings.staging_repository / MODEL_NAME / "2"),
        mlflow_run_id="m",
        opened_at=dt.datetime.now(dt.UTC),
    )
    found = thresholds_of(ServingRepository(settings.serving_repository), opened)
    assert found == {CHAMPION: 0.25, CANDIDATE: 0.125}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (CHAMPION, 0.25),
        (CANDIDATE, 0.125),
        (Target(model=MODEL_NAME, version=9), 0.5),
        (Target(model="another", version=1), 0.5),
    ],
)
def test_predictions_are_decided_at_the_version_s_threshold(
    settings: Settings, target: Target, expected: float
) -> None:
    assert _threshold(settings, target) == expected
