from itertools import count

from model_code.live.direct_load import STAGES, direct_load
from tests.support.live import StepPredictor, path, quote


def test_each_tick_counts_from_when_it_was_due() -> None:
    # every look at the clock takes 1 ms, so that the path falls behind 2,000 ticks a second
    ticks = [quote(number, number) for number in range(1, 101)]
    clock = count(0, 1_000_000)
    live = path(clock=lambda: next(clock))
    found = direct_load(
        live, StepPredictor(), ticks, rate=2000.0, clock=lambda: next(clock), warm=64
    )
    assert live.ledger.balanced()
    assert live.ledger.lost == 0
    assert found.stages == STAGES
    assert (found.ticks, found.quotes) == (36, 36)
    assert 0 < found.decided <= 36
    assert found.answered_by == {("in-process",): found.decided}
    assert found.ms(50) > found.ms(50, "inference") > 0
    assert found.ms(99, "waiting") > 1.0  # behind
    assert not found.sustained(1.0)
