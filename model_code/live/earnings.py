"""What replayed decisions could have earned when filled later, as `benchmark.profit` defines it.

Shapes: B decisions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model_code.benchmark.profit import day_cases
from model_code.features.venues import siblings
from model_code.live.replay import Outcome
from model_code.settings import FeatureSpec


@dataclass(frozen=True)
class Earned:
    """Best cases of one instrument in bps after cost (`benchmark.profit`), each a sum and a count.

    Attributes:
        chosen, chosen_bps: positive decisions and what they earn.
        windows, windows_bps: every window, for comparison.
    """

    chosen: int = 0
    chosen_bps: float = 0.0
    windows: int = 0
    windows_bps: float = 0.0

    def __add__(self, other: "Earned") -> "Earned":
        return Earned(
            self.chosen + other.chosen,
            self.chosen_bps + other.chosen_bps,
            self.windows + other.windows,
            self.windows_bps + other.windows_bps,
        )


def earned(
    outcomes: Mapping[str, Outcome], spec: FeatureSpec, delay_ms: float
) -> dict[str, Earned]:
    """What the decisions of one date could have earned when filled that much later.

    Args:
        outcomes: of `Replay.play`.
        spec: names label, horizon and cost.
        delay_ms: from the quote that ends the window to the fill.
    """
    others = siblings(tuple(outcomes))
    found = {}
    for symbol, one in outcomes.items():
        venues = [outcomes[name].quotes for name in others[symbol]]
        ends_B, chosen_B = (
            day_cases(spec, one.quotes, one.segment_N, rows_B, delay_ms, venues)
            if len(rows_B)
            else np.empty(0)
            for rows_B in (one.ends, one.positive)
        )
        found[symbol] = Earned(
            len(chosen_B), float(chosen_B.sum()), len(ends_B), float(ends_B.sum())
        )
    return found
