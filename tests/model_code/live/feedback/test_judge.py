"""Figures against scikit-learn and the nightly's drift; only planted drift is found."""

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from model_code.features.batch import compute
from model_code.features.drift import drift
from model_code.live.feedback.frames import Frame
from model_code.live.feedback.judge import Judge, Judgement
from model_code.live.feedback.labels import Labelled
from model_code.live.feedback.reference import LiveReference
from model_code.live.feedback.spec import FeedbackSpec
from model_code.live.recorded import PlayedDay, played
from model_code.market.store import open_market
from model_code.settings import FEATURE_COUNT, FeatureSpec
from tests.support.feedback import frames, reference
from tests.support.market import DATES, hive

SPEC = FeatureSpec(feature_set="solo")
LIVE = FeedbackSpec(
    window_s=20.0, every_s=10.0, minimum=100, minimum_events=10, auc_goal=0.0, sustained=2
)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> dict[dt.date, list[PlayedDay]]:
    store = open_market(hive(tmp_path_factory.mktemp("store"), n=3000, dates=DATES[:2]))
    found: dict[dt.date, list[PlayedDay]] = {}
    for one in sorted(store.catalog()):
        found.setdefault(one.date, []).append(played(store, one)[0])
    return found


@pytest.fixture(scope="module")
def trained(days: dict[dt.date, list[PlayedDay]]) -> LiveReference:
    rows = [compute(one.ticks, SPEC) for date in days for one in days[date]]
    kept = [np.arange(len(one.timestamp_N)) >= 63 for one in rows]
    return reference(
        np.concatenate([one.features_NF[k] for one, k in zip(rows, kept, strict=True)]),
        np.concatenate([one.timestamp_N[k] for one, k in zip(rows, kept, strict=True)]),
        SPEC,
    )


def judged(
    stream: list[Frame], trained: LiveReference, spec: FeedbackSpec = LIVE
) -> tuple[list[Judgement], list[Labelled]]:
    judge, found, labelled = Judge(spec, trained), list[Judgement](), list[Labelled]()
    for frame in stream:
        labelled += judge.take(frame.rows, frame.sampled)
        one = judge.judge()
        found += [] if one is None else [one]
    return found, [*labelled, *judge.finish()]


def test_an_undrifted_day_breaches_nothing(
    days: dict[dt.date, list[PlayedDay]], trained: LiveReference
) -> None:
    found, _ = judged(list(frames(days[max(days)])), trained)
    windows = [one for one in found if one.figures.judged]
    assert len(windows) >= 5
    assert max(one.streak for one in found) < LIVE.sustained
    assert not any(one.sustained for one in found)


def test_a_planted_shift_is_a_sustained_breach_of_its_feature(
    days: dict[dt.date, list[PlayedDay]], trained: LiveReference
) -> None:
    name = list(trained.bins)[6]
    shift_F = np.zeros(FEATURE_COUNT, np.float32)
    shift_F[6] = 3.0 * max(1e-3, np.diff(trained.bins[name].cuts).max())
    found, _ = judged(list(frames(days[max(days)], shift_F=shift_F)), trained)
    first = next(one for one in found if one.sustained)
    assert first.streak == LIVE.sustained
    assert first.figures.breaches[0].split()[2] == name
    assert first.figures.psi[name] > first.figures.limits[name]


def test_figures_are_those_of_the_nightly(
    days: dict[dt.date, list[PlayedDay]], trained: LiveReference
) -> None:
    judge = Judge(LIVE.model_copy(update={"window_s": 1e6}), trained)
    stream = list(frames(days[max(days)]))
    kept: list[Labelled] = []
    last: Judgement | None = None
    for frame in stream:
        kept += judge.take(frame.rows, frame.sampled)
        last = judge.judge() or last
    assert last is not None
    figures = last.figures
    kept = kept[: figures.decisions]
    label = np.array([one.label for one in kept])
    p = np.array([one.sampled.decision.probability for one in kept])
    x = np.stack([np.frombuffer(one.sampled.features, np.float32) for one in kept])
    seen = label >= 0
    assert figures.auc == pytest.approx(roc_auc_score(label[seen], p[seen]))
    assert figures.average_precision == pytest.approx(average_precision_score(label[seen], p[seen]))
    assert figures.base_rate == pytest.approx(label[seen].mean())
    assert figures.auc is not None
    assert figures.auc_low is not None
    assert figures.auc_high is not None
    assert figures.auc_low < figures.auc < figures.auc_high
    assert figures.unlabelled == (~seen).sum()
    rows = [compute(one.ticks, SPEC).features_NF[63:] for date in days for one in days[date]]
    assert figures.psi == pytest.approx(drift(np.concatenate(rows), x, list(trained.bins)))


def test_too_few_decisions_are_not_judged(
    days: dict[dt.date, list[PlayedDay]], trained: LiveReference
) -> None:
    strict = LIVE.model_copy(update={"minimum": 100_000})
    shift_F = np.full(FEATURE_COUNT, 100.0, np.float32)
    found, _ = judged(list(frames(days[max(days)], shift_F=shift_F)), trained, strict)
    assert found
    assert not any(one.figures.judged or one.figures.breaches or one.streak for one in found)


def test_a_model_that_guesses_misses_its_goal(
    days: dict[dt.date, list[PlayedDay]], trained: LiveReference
) -> None:
    goal = LIVE.model_copy(update={"auc_goal": 0.999})
    found, _ = judged(list(frames(days[max(days)])), trained, goal)
    assert any(one.sustained for one in found)
    first = [one.figures.breaches[0] for one in found if one.figures.judged]
    assert all(text.startswith("AUC 0.") and "goal 0.999" in text for text in first)


def test_a_reference_is_read_as_it_was_written(trained: LiveReference, tmp_path: Path) -> None:
    trained.save(tmp_path)
    again = LiveReference.load(tmp_path)
    assert again == trained
    assert again.limits(1.0, 0.25) == again.limits(60.0, 0.25)  # the only spans
    assert min(again.limits(900.0, 0.25).values()) >= 0.25
