"""Whose threshold decides what, and whose windows are sent, in shadow and canary."""

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.cli.predict import _threshold
from model_code.artifacts import hash_path
from model_code.errors import PromotionError
from model_code.features.served import ServedFeatures
from model_code.repository.manifest import MANIFEST_FILE
from model_code.repository.requests import REPLAY_FILE, Replay
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.candidate import CANDIDATE_NAME
from model_code.serving.swap import BRIDGE_NAMES
from model_code.settings import MODEL_NAME, FeatureSpec, Settings
from tasks.promotion.records import Opened
from tasks.promotion.shadow import RecordedWindows, recorded_windows, thresholds_of
from tests.support.serving import APPROVAL, staged, windows

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
        (Target(model=BRIDGE_NAMES[0], version=1), 0.25),
        (Target(model=MODEL_NAME, version=9), 0.5),
        (Target(model="another", version=1), 0.5),
    ],
)
def test_predictions_are_decided_at_the_version_s_threshold(
    settings: Settings, target: Target, expected: float
) -> None:
    assert _threshold(settings, target) == expected


PAIRED = ServedFeatures.of(FeatureSpec(feature_set="paired"), {"A": ("B",)})


def recorded(settings: Settings, version: int, champion: int | None) -> Path:
    """A staged version of other features, its requests recorded for this champion."""
    folder = staged(settings.staging_repository, version, features=PAIRED)
    replay = Replay.load(folder / REPLAY_FILE)
    own = None if champion is None else -replay.x_RTF
    Replay(replay.x_RTF, replay.probability_R, replay.label_R, champion, own).save(
        folder / REPLAY_FILE
    )
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["files"][REPLAY_FILE] = hash_path(folder / REPLAY_FILE)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return folder


def test_versions_of_equal_features_share_the_recorded_windows(settings: Settings) -> None:
    serving = ServingRepository(settings.serving_repository)
    found, own, even = recorded_windows(serving, settings.staging_repository / MODEL_NAME / "2")
    np.testing.assert_array_equal(found, windows())
    assert (own, even) == ({}, len(windows()))


def test_positives_of_the_champion_follow_the_evenly_spaced_windows(settings: Settings) -> None:
    replay = Replay.load(settings.staging_repository / MODEL_NAME / "2" / REPLAY_FILE)
    other = replace(
        replay,
        positive_x_PTF=windows(3),
        champion_version=1,
        champion_x_RTF=-replay.x_RTF,
        champion_positive_x_PTF=-windows(3),
    )
    found, own, even = RecordedWindows.of(other, None)
    assert (len(found), own, even) == (len(windows()) + 3, {}, len(windows()))
    np.testing.assert_array_equal(found[even:], windows(3))
    np.testing.assert_array_equal(RecordedWindows.of(other, 1).windows_of[1], -found)


def test_a_champion_of_other_features_has_its_own_recorded_windows(settings: Settings) -> None:
    serving = ServingRepository(settings.serving_repository)
    found, own, even = recorded_windows(serving, recorded(settings, 3, champion=1))
    np.testing.assert_array_equal(found, windows())
    assert (list(own), even) == ([1], len(windows()))
    np.testing.assert_array_equal(own[1], -windows())


@pytest.mark.parametrize(("champion", "words"), [(None, "no other version"), (7, "version 7")])
def test_requests_recorded_for_another_champion_stop_the_promotion(
    settings: Settings, champion: int | None, words: str
) -> None:
    serving = ServingRepository(settings.serving_repository)
    expected = f"sees other features than version 1, .* recorded for {words}"
    with pytest.raises(PromotionError, match=expected) as caught:
        recorded_windows(serving, recorded(settings, 3, champion))
    assert "tickline nightly" in str(caught.value)


def test_the_first_promotion_needs_no_champion_s_windows(settings: Settings) -> None:
    serving = ServingRepository(settings.serving_repository)
    Route(champion=None).save(serving.route_file)
    found, own, even = recorded_windows(serving, recorded(settings, 3, champion=None))
    np.testing.assert_array_equal(found, windows())
    assert (own, even) == ({}, len(windows()))
