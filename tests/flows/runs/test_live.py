"""The live service's process."""

import gc
import sys

from flows.runs.live import SWITCH_S, short_pauses


def test_pauses_are_short_while_it_serves_and_as_before_afterwards() -> None:
    before, frozen = sys.getswitchinterval(), gc.get_freeze_count()
    with short_pauses():
        assert abs(sys.getswitchinterval() - SWITCH_S) < 1e-6
        assert gc.get_freeze_count() > frozen
    assert sys.getswitchinterval() == before
    assert gc.get_freeze_count() == 0
