"""Market conditions of a feature table's windows. B windows."""

import numpy as np
import numpy.typing as npt

from model_code.benchmark.slices import WindowContext
from model_code.features.dataset import FeatureTable
from model_code.features.definition import names


def window_context(
    rows: FeatureTable,
    ends_B: npt.NDArray[np.int64],
    weight_B: npt.NDArray[np.float64] | None = None,
) -> WindowContext:
    """Time, instrument, spread and volatility at the end of each window, and its weight."""
    symbols = np.array(rows.meta.symbols)
    volatility = names(rows.meta.spec.chosen_set).index("volatility")  # every set has it
    return WindowContext(
        timestamp_ns_N=rows.timestamp_N[ends_B],
        symbol_N=symbols[rows.symbol_N[ends_B]],
        spread_N=rows.spread_bps_N[ends_B],
        volatility_N=rows.features_NF[ends_B][:, volatility].copy(),
        weight_N=weight_B,
    )
