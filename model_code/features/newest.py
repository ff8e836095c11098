"""The newest windows of a market store, computed as each model version sees them.

Shapes: N windows, T = 64 steps, F = 16 features.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model_code.errors import ConfigError
from model_code.features.batch import compute
from model_code.features.definition import looks_at_depth
from model_code.features.pairs import EMPTY
from model_code.features.served import SeenFeatures
from model_code.features.supplements.depth import EMPTY as EMPTY_BOOK
from model_code.features.supplements.depth import read_depth
from model_code.features.supplements.exogenous import read_series
from model_code.features.windows import gather, valid_ends
from model_code.market.quality import quarantine
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from model_code.settings import SEQUENCE_LENGTH, FeatureSpec, ValidationSpec

RESET_GAP_S = FeatureSpec().reset_gap_s
Named = tuple[NDArray[np.float32], list[str]]


class NewestWindows:
    """The last windows of an instrument's newest day.

    Args:
        uri: of the store.
        instrument: None for the store's first of that day.
        last: number of windows.

    Raises:
        ConfigError: the store has no such instrument.
    """

    def __init__(self, uri: str, instrument: str | None, last: int) -> None:
        self._uri, self._last, self._store = uri, last, open_market(uri)
        catalog = self._store.catalog()
        days = [day for day in catalog if instrument in (None, day.symbol)]
        if not days:
            raise ConfigError(
                f"no instrument {instrument}", where=uri, remedy="list them: tickline data describe"
            )
        self._day = next(day for day in days if day.date == days[-1].date)
        self._present = {day.symbol: day for day in catalog if day.date == self._day.date}
        self._found: list[tuple[SeenFeatures, float, Named]] = []

    def windows(self, features: SeenFeatures, reset_gap_s: float = RESET_GAP_S) -> Named:
        """Windows (N, 64, 16) as versions of these features see them, and their names.

        Leaders' ticks are read from the same store and day. As in training, what an instrument sees
        of an absent leader is 0.

        Raises:
            ConfigError: too few consecutive ticks.
            DataError: a day cannot be read, or the store lacks the depth rows or series that the
                version sees.
            MarketError: the store lacks an exogenous table.
        """
        for seen, gap_s, named in self._found:
            if (seen, gap_s) == (features.seen, reset_gap_s):
                return named
        spec = FeatureSpec(
            feature_set=features.feature_set,
            exogenous=features.exogenous,
            reset_gap_s=reset_gap_s,
        )
        named = self._computed(features, spec)
        self._found.append((features.seen, reset_gap_s, named))
        return named

    def _computed(self, features: SeenFeatures, spec: FeatureSpec) -> Named:
        alone = spec.with_set("solo")
        others = [
            compute(self._ticks(self._present[name]), alone).states_N
            if name in self._present
            else EMPTY
            for name in features.leaders.get(self._day.symbol, ())
        ]
        book_S = EMPTY_BOOK
        if looks_at_depth(spec.chosen_set):
            book_S, _ = read_depth(self._store, self._day)
        series = read_series(self._store, spec.exogenous)
        rows = compute(self._ticks(self._day), spec, others, book_S, series)
        # inference needs no labels: with dummy labels every window is valid
        no_label_N = np.zeros(len(rows.segment_N), np.int8)
        ends = valid_ends(rows.segment_N, no_label_N)[-self._last :]
        if not len(ends):
            raise ConfigError(
                f"fewer than {SEQUENCE_LENGTH} consecutive ticks",
                where=f"{self._uri}, {self._day.symbol} {self._day.date}",
            )
        stamps = np.asarray(rows.timestamp_N[ends], "datetime64[ns]")
        names = [f"{self._day.symbol} {stamp}" for stamp in stamps]
        return gather(rows.features_NF, ends), names

    def _ticks(self, day: InstrumentDay) -> pa.Table:
        spec = ValidationSpec(profile=self._store.statement.profile)
        good, _, _ = quarantine(self._store.read(day), day, spec)
        return good
