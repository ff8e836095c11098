"""Which model of a night goes on, and what is said of the others."""

import numpy as np
import pytest

from model_code.benchmark.comparison import Comparison, Windows, between, compare
from model_code.benchmark.reports.frontier import draw_frontier
from model_code.benchmark.significance import Interval
from model_code.training.metrics import classification
from tests.support.benchmark import context
from tests.support.rare import market

COUNT = 4000
RANDOM = np.random.default_rng(3)
LOGIT = RANDOM.normal(size=COUNT)
LABEL = (RANDOM.uniform(size=COUNT) < 1 / (1 + np.exp(-LOGIT))).astype(np.int8)


def answers(noise: float, seed: int) -> np.ndarray:
    """Probabilities that know the true log-odds up to noise of this size."""
    noisy = LOGIT + noise * np.random.default_rng(seed).normal(size=COUNT)
    found: np.ndarray = 1 / (1 + np.exp(-noisy))
    return found


def compared(
    validation_auc: dict[str, float], p50_ms: dict[str, float], **noise: float
) -> Comparison:
    test = Windows(
        label_B=LABEL,
        context=context(COUNT),
        probability_B={name: answers(size, i) for i, (name, size) in enumerate(noise.items())},
        boosting_B=answers(1.0, 99),
    )
    return compare(
        test,
        boosting={"auc": 0.7, "average_precision": 0.6, "log_loss": 0.6},
        validation_auc=validation_auc,
        thresholds=dict.fromkeys(noise, 0.5),
        p50_ms=p50_ms,
        seconds=dict.fromkeys(noise, 1.0),
    )


GOOD_AND_POOR = ({"good": 0.80, "poor": 0.70}, {"good": 5.0, "poor": 0.1})


def test_the_best_on_validation_goes_on_even_if_it_is_slow() -> None:
    found = compared(*GOOD_AND_POOR, good=0.1, poor=3.0)
    assert found.chosen == "good"
    assert found.reason == "good has the best validation AUC (0.8000)"
    good, poor = found.rows
    assert good.ahead is not None
    assert poor.ahead is not None
    assert good.ahead.low > 0 > poor.ahead.high
    assert good.auc > poor.auc


@pytest.mark.parametrize(("auc", "chosen"), [(0.7991, "fast"), (0.7989, "best")])
def test_among_models_that_are_level_the_fastest_goes_on(auc: float, chosen: str) -> None:
    found = compared({"best": 0.8, "fast": auc}, {"best": 5.0, "fast": 0.1}, best=0.5, fast=0.5)
    assert found.chosen == chosen
    if chosen == "fast":
        assert found.reason == (
            "fast is the fastest of those level in validation AUC: best 0.8000, fast 0.7991"
        )


def test_equal_models_at_equal_speed_keep_the_first() -> None:
    equal = {"first": 0.8, "second": 0.8}
    assert compared(equal, {"first": 1.0, "second": 1.0}, first=1, second=1).chosen == "first"


def test_the_table_shows_every_model_and_boosting() -> None:
    found = compared(*GOOD_AND_POOR, good=0.1, poor=3.0)
    text = found.markdown()
    assert "| **good** | 0." in text
    assert "| poor | 0." in text
    assert "| gradient boosting (baseline) | 0.7000 | | 0.6000 | 0.6000 | | |" in text
    assert "4,000 test windows" in text


def test_the_picture_is_a_png(tmp_path) -> None:
    found = compared(*GOOD_AND_POOR, good=0.1, poor=3.0)
    path = draw_frontier(found, tmp_path / "frontier.png")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (None, "–"),
        (Interval(low=-0.00123, high=0.00456, confidence=0.95), "-0.0012..+0.0046"),
    ],
)
def test_intervals_have_signs(bounds: Interval | None, text: str) -> None:
    assert between(bounds) == text


def test_models_and_boosting_are_compared_with_the_same_weights() -> None:
    whole = market()
    taken = whole.by_class()
    found = compare(
        Windows(taken.label_N, taken.context, {"mlp": taken.probability_N}, taken.boosting_N),
        boosting=classification(taken.label_N, taken.boosting_N, 0.05, taken.weight_N),
        validation_auc={"mlp": 0.8},
        thresholds={"mlp": 0.05},
        p50_ms={"mlp": 1.0},
        seconds={"mlp": 1.0},
    )
    (row,) = found.rows
    expected = classification(whole.label_N, whole.probability_N, 0.05)
    assert row.log_loss == pytest.approx(expected["log_loss"], rel=0.05)
    assert row.accuracy == pytest.approx(expected["accuracy"], abs=0.003)
    assert found.base_rate == pytest.approx(whole.label_N.mean())
    assert row.ahead is not None
    assert row.ahead.low < row.auc - found.boosting["auc"] < row.ahead.high
    assert f"{found.sampling}." in found.markdown()
    assert found.sampling.endswith("without, weighted")
