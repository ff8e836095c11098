"""Which model of a night goes on, and what is said of the others."""

import numpy as np
import pytest

from model_code.benchmark.comparison import Comparison, Windows, between, compare
from model_code.benchmark.reports.frontier import draw_frontier
from model_code.benchmark.significance import Interval
from tests.support.benchmark import context

COUNT = 4000
RANDOM = np.random.default_rng(3)
LOGIT = RANDOM.normal(size=COUNT)
LABEL = (RANDOM.uniform(size=COUNT) < 1 / (1 + np.exp(-LOGIT))).astype(np.int8)


def answers(noise: float, seed: int) -> np.ndarray:
    """Probabilities that know the true log-odds up to noise of this size."""
    noisy = LOGIT + noise * np.random.default_rng(seed).normal(size=COUNT)
    found: np.ndarray = 1 / (1 + np.exp(-noisy))
    return found


def compared(p50_ms: dict[str, float], **noise: float) -> Comparison:
    part = Windows(
        label_B=LABEL,
        context=context(COUNT),
        probability_B={name: answers(size, i) for i, (name, size) in enumerate(noise.items())},
    )
    boosting_B = answers(1.0, 99)
    return compare(
        part,
        part,
        boosting_B=boosting_B,
        boosting={"auc": 0.7, "average_precision": 0.6, "log_loss": 0.6},
        thresholds=dict.fromkeys(noise, 0.5),
        p50_ms=p50_ms,
        seconds=dict.fromkeys(noise, 1.0),
    )


def test_the_best_on_validation_goes_on_even_if_it_is_slow() -> None:
    found = compared({"good": 5.0, "poor": 0.1}, good=0.1, poor=3.0)
    assert found.chosen == "good"
    assert found.reason.startswith("good has the best validation AUC (0.")
    good, poor = found.rows
    assert good.behind is None
    assert poor.behind is not None
    assert poor.behind.high < 0
    assert good.ahead is not None
    assert good.ahead.low > 0 > (poor.ahead or good.ahead).high
    assert good.auc == good.validation_auc  # the same windows here


def test_among_models_that_are_level_the_fastest_goes_on() -> None:
    found = compared({"one": 5.0, "other": 0.1}, one=0.50, other=0.51)
    assert found.chosen == "other"
    assert found.reason.startswith("other is the fastest of those level in validation AUC: one 0.")


def test_equal_answers_at_equal_speed_keep_the_first() -> None:
    part = Windows(LABEL, context(COUNT), {"first": answers(1, 0), "second": answers(1, 0)})
    found = compare(
        part,
        part,
        boosting_B=answers(1.0, 99),
        boosting={"auc": 0.7, "average_precision": 0.6, "log_loss": 0.6},
        thresholds={"first": 0.5, "second": 0.5},
        p50_ms={"first": 1.0, "second": 1.0},
        seconds={"first": 1.0, "second": 1.0},
    )
    assert found.chosen == "first"


def test_the_table_shows_every_model_and_boosting() -> None:
    found = compared({"good": 5.0, "poor": 0.1}, good=0.1, poor=3.0)
    text = found.markdown()
    assert "| **good** | 0." in text
    assert "| poor | 0." in text
    assert "| gradient boosting (baseline) | 0.7000 | | 0.6000 | 0.6000 | | |" in text
    assert "4,000 test windows" in text


def test_the_picture_is_a_png(tmp_path) -> None:
    found = compared({"good": 5.0, "poor": 0.1}, good=0.1, poor=3.0)
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
