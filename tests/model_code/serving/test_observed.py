import pytest
from pydantic import ValidationError

from model_code.serving.observed import Observed, Tally
from model_code.settings import PromotionSpec

SPEC = PromotionSpec(canary_patience=5, max_p50_ratio=2.0, max_p99_ms=50.0, max_disagreement=0.2)


def tally(candidate_ms: float = 3.0, champion_ms: float = 2.0, other: int = 0) -> Tally:
    found = Tally()
    found.champion_ms += [champion_ms] * 10
    for number in range(10):
        found.answer(candidate_ms, agrees=number >= other)
    return found


def test_numbers() -> None:
    found = tally(other=2)
    found.error("no answer")
    seen = found.observed()
    assert (seen.requests, seen.errors, seen.disagreements) == (11, 1, 2)
    assert seen.error_rate == pytest.approx(1 / 11)
    assert seen.disagreement == pytest.approx(0.2)
    assert (seen.candidate_p50_ms, seen.champion_p50_ms) == (3.0, 2.0)


def test_a_good_candidate_breaks_no_goal() -> None:
    assert tally(other=2).observed().broken(SPEC) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (tally(other=3), "disagreement with the champion 30.00% > 20.00%"),
        (tally(candidate_ms=4.1), "median latency 4.10 ms > 2 times the champion's 2.00 ms"),
        (tally(candidate_ms=60.0, champion_ms=40.0), "p99 latency 60.00 ms > 50 ms"),
    ],
)
def test_each_broken_goal_is_described(found: Tally, words: str) -> None:
    assert found.observed().broken(SPEC) == [words]


def test_an_error_counts_at_once_other_goals_after_enough_responses() -> None:
    found = Tally()
    found.answer(1000.0, agrees=False)
    found.champion_ms.append(1.0)
    assert found.observed().broken(SPEC) == []
    found.error("model did not respond")
    assert found.observed().broken(SPEC) == [
        "error rate 50.00% > 0.00%: 1 of 2 (model did not respond)"
    ]


def test_too_few_responses_break_a_goal_at_the_end() -> None:
    found = Tally()
    for _ in range(SPEC.canary_patience - 1):
        found.answer(1.0, agrees=True)
    assert found.observed().broken(SPEC, final=True) == ["too few responses to judge: 4 of 5"]
    found.answer(1.0, agrees=True)
    assert found.observed().broken(SPEC, final=True) == []
    with pytest.raises(ValidationError, match="nothing could be judged"):
        PromotionSpec(canary_patience=50, shadow_requests=49)


def test_without_requests_no_goal_is_broken() -> None:
    assert Tally().observed().broken(SPEC) == []
    assert Observed.model_validate_json(Tally().observed().model_dump_json()).requests == 0
