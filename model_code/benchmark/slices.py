"""Where in the market an engine's answers differ: slices of the test windows, and the worst ones.

Shapes: N test windows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class WindowContext:
    """What the market was like at each test window's end.

    Attributes:
        timestamp_ns_N: int64, ns UTC.
        symbol_N: instrument, strings.
        spread_N: any unit that grows with the spread; basis points of the mid in a benchmark.
        volatility_N: any unit that grows with the volatility.
    """

    timestamp_ns_N: NDArray[np.int64]
    symbol_N: NDArray[np.str_]
    spread_N: NDArray[np.floating]
    volatility_N: NDArray[np.floating]
