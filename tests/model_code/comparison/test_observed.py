import pytest
from pydantic import ValidationError

from model_code.comparison.observed import Observed, Tally, alpha_of_each
from model_code.settings import PromotionSpec

SPEC = PromotionSpec(canary_patience=5, max_p50_ratio=2.0, max_p99_ms=50.0, max_disagreement=0.2)


def tally(
    candidate_ms: float = 3.0, champion_ms: float = 2.0, other: int = 0, count: int = 20
) -> Tally:
    found = Tally(SPEC)
    for number in range(count):
        found.answer(candidate_ms, champion_ms=champion_ms)
        found.decision(agrees=number >= other, champion=False)
    return found


def test_numbers() -> None:
    found = tally(other=2)
    found.error("no answer")
    seen = found.observed()
    assert (seen.requests, seen.errors, seen.disagreements) == (21, 1, 2)
    assert seen.error_rate == pytest.approx(1 / 21)
    assert seen.disagreement == pytest.approx(0.1)
    assert (seen.candidate_p50_ms, seen.champion_p50_ms) == (3.0, 2.0)
    assert (seen.pairs, seen.slower, seen.timed, seen.slow) == (20, 0, 20, 0)


def test_a_good_candidate_breaks_no_goal() -> None:
    assert tally(other=2).observed().broken(SPEC) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (tally(other=16), "disagreement with the champion 80.00% > 20.00%: 16 of 20"),
        (
            tally(candidate_ms=4.1),
            "latency above 2 times the champion's 100.00% > 50.00%: 20 of 20 pairs "
            "(median 4.10 ms, champion 2.00 ms)",
        ),
        (
            tally(candidate_ms=60.0, champion_ms=40.0),
            "latency above 50 ms 100.00% > 1.00%: 20 of 20 (p99 60.00 ms)",
        ),
    ],
)
def test_each_broken_goal_is_described(found: Tally, words: str) -> None:
    assert found.observed().broken(SPEC) == [words]


def test_an_estimate_above_its_limit_is_no_violation_until_it_is_shown() -> None:
    assert tally(other=5).observed().disagreement > SPEC.max_disagreement
    assert tally(other=5).observed().broken(SPEC) == []


def test_an_error_counts_at_once_other_goals_when_they_are_shown() -> None:
    found = Tally(SPEC)
    found.answer(1000.0, champion_ms=1.0)
    found.decision(agrees=False, champion=True)
    assert found.observed().broken(SPEC) == []
    found.error("model did not respond")
    assert found.observed().broken(SPEC) == [
        "error rate 50.00% > 0.00%: 1 of 2 (model did not respond)"
    ]


def test_missed_positives_are_judged_apart_from_the_rest() -> None:
    """0.4% of 5000 requests are positives of the champion; the candidate never decides true."""
    found = Tally(SPEC)
    for number in range(5000):
        positive = number % 250 == 0
        found.answer(1.0, champion_ms=1.0)
        found.decision(agrees=not positive, champion=positive)
    seen = found.observed()
    assert seen.disagreement == pytest.approx(0.004)
    assert seen.broken(SPEC) == ["missed positives of the champion 100.00% > 50.00%: 20 of 20"]


def test_replayed_positives_do_not_count_as_drawn() -> None:
    found = tally()
    for _ in range(10):
        found.decision(agrees=False, champion=True, drawn=False)
    seen = found.observed()
    assert (seen.compared, seen.disagreements, seen.positives, seen.missed) == (20, 0, 10, 10)


def test_decisions_of_earlier_steps_count_errors_and_latency_do_not() -> None:
    first = tally(other=2, candidate_ms=100.0)
    first.error("no answer")
    found = Tally(SPEC, first.observed())
    found.answer(1.0, champion_ms=1.0)
    found.decision(agrees=False, champion=True)
    seen = found.observed()
    assert (seen.compared, seen.disagreements, seen.positives, seen.missed) == (21, 3, 1, 1)
    assert (seen.requests, seen.errors, seen.slow, seen.pairs) == (1, 0, 0, 1)


def test_too_few_responses_break_a_goal_at_the_end() -> None:
    found = tally(count=SPEC.canary_patience - 1)
    assert found.observed().broken(SPEC, final=True) == ["too few responses to judge: 4 of 5"]
    found.answer(1.0)
    assert found.observed().broken(SPEC, final=True) == []
    found.recorded_positives = 3
    assert found.observed().broken(SPEC, final=True) == [
        "too few of the champion's positives to judge: 0 of 5"
    ]
    with pytest.raises(ValidationError, match="nothing could be judged"):
        PromotionSpec(canary_patience=50, shadow_requests=49)


def test_live_traffic_and_triton_s_counters_are_judged_by_the_same_goals() -> None:
    live = tally(candidate_ms=60.0, champion_ms=40.0)
    live.error("refused")
    server = Observed.of_server(400, 2, "seen by other clients")
    seen = tally().observed(live.observed(), server)
    assert seen.broken(SPEC) == [
        "live traffic: error rate 4.76% > 0.00%: 1 of 21 (refused)",
        "live traffic: latency above 50 ms 100.00% > 1.00%: 20 of 20 (p99 60.00 ms)",
        "Triton's counters: error rate 0.50% > 0.00%: 2 of 400 (seen by other clients)",
    ]
    assert Observed.of_server(400, 0).broken(SPEC) == []


def test_each_goal_is_told_with_bounds_and_a_finding() -> None:
    found = {one.goal: one for one in tally(count=200).observed(tally().observed()).judged(SPEC)}
    errors, decisions = found["error rate"], found["disagreement with the champion"]
    assert (errors.hits, errors.trials, errors.words) == (0, 200, "no violation shown")
    assert (decisions.lower, decisions.words) == (0.0, "shown met")
    assert decisions.upper < decisions.limit == 0.2
    assert "live traffic: error rate" in found
    assert "missed positives of the champion" not in found  # there are none
    assert tally(other=16).observed().judged(SPEC)[1].words == "violated"


def test_each_test_gets_an_equal_part_of_alpha() -> None:
    assert alpha_of_each(SPEC) == pytest.approx(0.05 / 28)
    assert alpha_of_each(SPEC.model_copy(update={"shares": (1.0,)})) == pytest.approx(0.05 / 14)


def test_without_requests_no_goal_is_broken() -> None:
    assert Tally(SPEC).observed().broken(SPEC) == []
    text = Tally(SPEC).observed().model_dump_json()
    assert Observed.model_validate_json(text).requests == 0
