"""What a version's live decisions are compared with: its label, and its training features.

The PSI of a quarter of an hour against weeks is large without any shift: volatility and spread move
slowly. So the reference also holds how far training's own spans of several lengths were from the
whole, and a live window is judged by the spans of its length.

Shapes: N training rows, F features, S spans.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from model_code.errors import ConfigError, IntegrityError
from model_code.features.drift import Bins
from model_code.settings import FeatureSpec

REFERENCE_FILE = "reference.json"
LENGTHS_S = (60, 300, 900, 3600, 14_400)
FEWEST = 100  # rows of a span
USUAL = 0.99  # quantile over the spans


class LiveReference(BaseModel):
    """A version's label and the distribution of its features in training.

    Attributes:
        spec: label, horizon, cost and features.
        bins: of each feature, in the order of the windows' columns.
        usual: by length of a span in s: the PSI that 99% of training's spans do not exceed, by
            feature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: FeatureSpec
    bins: dict[str, Bins]
    usual: dict[int, dict[str, float]]

    @classmethod
    def of(
        cls,
        features_NF: NDArray[np.floating],
        timestamp_N: NDArray[np.int64],
        names: Sequence[str],
        spec: FeatureSpec,
        lengths_s: Sequence[int] = LENGTHS_S,
    ) -> Self:
        """The reference of training rows.

        Args:
            features_NF: at the end of each training window.
            timestamp_N: of the same rows, ns UTC.
            names: of the features.
            spec: that they were computed with.
            lengths_s: of the spans.
        """
        bins = {name: Bins.of(features_NF[:, place], name) for place, name in enumerate(names)}
        placed = {name: one.place(features_NF[:, n]) for n, (name, one) in enumerate(bins.items())}
        usual = {}
        for length in lengths_s:
            span_N = np.unique(timestamp_N // (length * 1_000_000_000), return_inverse=True)[1]
            rows_S = np.bincount(span_N)
            if (rows_S >= FEWEST).sum() > 1:
                usual[length] = {
                    name: _usual(one, placed[name], span_N, rows_S) for name, one in bins.items()
                }
        return cls(spec=spec, bins=bins, usual=usual)

    def limits(self, window_s: float, least: float) -> dict[str, float]:
        """The PSI that each feature may reach in a window: `least`, or what training reached.

        Of a length between two, the shorter spans count. Without spans, it is `least`.
        """
        known = [length for length in sorted(self.usual) if length <= window_s]
        shortest = min(self.usual, default=None)
        length = known[-1] if known else shortest
        usual: Mapping[str, float] = {} if length is None else self.usual[length]
        return {name: max(least, usual.get(name, 0.0)) for name in self.bins}

    def save(self, folder: Path) -> None:
        """Write it beside the version's other files."""
        (folder / REFERENCE_FILE).write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a version's reference.

        Raises:
            ConfigError: the version was staged without one.
            IntegrityError: malformed.
        """
        file = folder / REFERENCE_FILE
        if not file.is_file():
            raise ConfigError(
                "the version has no reference of its training features: it was staged earlier",
                where=str(file),
                remedy="use a version of a new nightly to judge live decisions",
            )
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise IntegrityError(
                f"the reference cannot be read: {error}", where=str(file),
                remedy="promote another version, or stage this one again",
            ) from error  # fmt: skip


def _usual(
    bins: Bins, place_N: NDArray[np.int64], span_N: NDArray[np.int64], rows_S: NDArray[np.int64]
) -> float:
    """The PSI that all but 1% of the spans stay below."""
    width = len(bins.counts)
    counts_SB = np.bincount(span_N * width + place_N, minlength=len(rows_S) * width)
    counts_SB = counts_SB.reshape(len(rows_S), width)
    found = [
        bins.psi(counts_B, int(rows))
        for counts_B, rows in zip(counts_SB, rows_S, strict=True)
        if rows >= FEWEST
    ]
    return float(np.quantile(found, USUAL, method="higher"))
