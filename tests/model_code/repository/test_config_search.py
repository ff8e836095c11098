"""Which serving settings are measured, worth having, and chosen."""

from model_code.repository.config_search import (
    DESIGN,
    Round,
    Row,
    choose,
    frontier,
    space,
)
from model_code.settings import ServingSpec

TWO = ServingSpec(instances=2)
NO_WAIT = ServingSpec(queue_delay_us=0)
LONG = ServingSpec(queue_delay_us=500)


def row(serving: ServingSpec, *figures: tuple[float, float], unanswered: int = 0) -> Row:
    """Rounds of (p99 in ms, processor time in us)."""
    return Row(serving, tuple(Round(p99 / 2, p99, cpu, unanswered) for p99, cpu in figures))


def test_the_design_comes_first_and_no_setting_comes_twice() -> None:
    found = space(engine_threads=2, cores=2)
    assert found[0] == DESIGN
    assert len(set(map(str, found))) == len(found)
    assert {one.queue_delay_us for one in found} == {0, 100, 500}
    assert {one.preferred_batch_sizes for one in found} == {(), (8, 16, 32)}
    assert {(one.instances, one.threads) for one in found} == {(1, None), (1, 1), (2, 1)}


def test_more_cores_allow_more_threads_and_instances() -> None:
    assert {(one.instances, one.threads) for one in space(engine_threads=2, cores=8)} == {
        (1, None), (1, 1), (1, 8), (2, None), (2, 1),
    }  # fmt: skip


def test_an_engine_of_one_thread_on_one_core_is_not_doubled() -> None:
    assert {(one.instances, one.threads) for one in space(1, 1)} == {(1, None)}


def test_figures_are_the_medians_of_the_rounds() -> None:
    found = row(DESIGN, (1.0, 100.0), (9.0, 300.0), (2.0, 200.0))
    assert (found.p50_ms, found.p99_ms, found.processor_us) == (1.0, 2.0, 200.0)


def test_the_frontier_has_what_no_other_beats_in_both_figures() -> None:
    fast, cheap = row(TWO, (1.0, 400.0)), row(LONG, (3.0, 100.0))
    beaten = row(DESIGN, (3.5, 400.0))
    failed = row(NO_WAIT, (0.5, 50.0), unanswered=1)
    assert frontier([beaten, cheap, failed, fast]) == (fast, cheap)


def test_the_cheapest_within_the_goal_is_chosen() -> None:
    design = row(DESIGN, (2.0, 300.0), (2.0, 310.0))
    cheap = row(LONG, (4.0, 200.0), (4.0, 210.0))
    late = row(NO_WAIT, (11.0, 100.0), (11.0, 100.0))
    found = choose([design, cheap, late], goal_ms=10.0)
    assert found.row is cheap
    assert "in every round" in found.reason


def test_one_lucky_round_does_not_displace_the_design() -> None:
    design = row(DESIGN, (2.0, 300.0), (2.0, 300.0), (2.0, 300.0))
    lucky = row(LONG, (2.0, 100.0), (2.0, 301.0), (2.0, 290.0))
    found = choose([design, lucky], goal_ms=10.0)
    assert found.row is design
    assert "the design's" in found.reason


def test_a_design_that_misses_the_goal_is_displaced() -> None:
    design, cheap = row(DESIGN, (12.0, 100.0)), row(TWO, (8.0, 400.0))
    found = choose([design, cheap], goal_ms=10.0)
    assert found.row is cheap
    assert "misses the goal" in found.reason


def test_nothing_is_chosen_if_none_meets_the_goal() -> None:
    failed = row(TWO, (1.0, 100.0), unanswered=3)
    found = choose([row(DESIGN, (12.0, 100.0)), failed], goal_ms=10.0)
    assert found.row is None
    assert "12.00 ms, 0 unanswered" in found.reason
