"""Drift of each feature between two sets of rows: population stability index (PSI).

PSI = sum over bins of (q - p) ln(q / p), with the deciles of the reference as bins. By convention
below 0.1 is no shift, 0.1 to 0.25 a moderate shift, above 0.25 a large shift (Siddiqi 2006, 'Credit
Risk Scorecards').

A value that a tenth of the reference or more has, such as the 0 of a feature that seldom changes,
is a bin of its own, between the values below it and those above: deciles alone would put it into
one bin with everything below it, where a shift downwards moves no row.

Shapes: N and M rows, F features.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_code.errors import DataError

BINS = 10
MODERATE, LARGE = 0.1, 0.25


class Bins(BaseModel):
    """A feature's bins in the reference.

    Attributes:
        cuts: upper edges of all bins but the last, rising; the edge belongs to the bin below it.
        counts: reference rows in each bin.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cuts: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, reference_N: NDArray[np.floating], name: str = "") -> Self:
        """The deciles of the reference, and its frequent values.

        Args:
            reference_N: finite; at least one row.
            name: of the feature, for the message.

        Raises:
            DataError: there is no row, or a value is NaN or infinite.
        """
        if not len(reference_N):
            raise DataError("there is no reference row to compare with", where=name)
        _require_finite(reference_N, "reference", name)
        value_V, count_V = np.unique(reference_N.astype(np.float64), return_counts=True)
        frequent = value_V[BINS * count_V >= len(reference_N)]
        deciles = np.quantile(reference_N.astype(np.float64), np.linspace(0, 1, BINS + 1)[1:-1])
        cuts = np.unique(np.concatenate([deciles, frequent, np.nextafter(frequent, -np.inf)]))
        bin_N = np.digitize(reference_N, cuts, right=True)
        counts = np.bincount(bin_N, minlength=len(cuts) + 1)
        return cls(cuts=tuple(cuts.tolist()), counts=tuple(counts.tolist()))

    def place(self, current_M: NDArray[np.floating], name: str = "") -> NDArray[np.int64]:
        """The bin of each value, (M,).

        Raises:
            DataError: a value is NaN or infinite.
        """
        _require_finite(current_M, "compared", name)
        place_M: NDArray[np.int64] = np.digitize(current_M, self.cuts, right=True)
        return place_M

    def psi(self, counts_B: NDArray[np.floating] | NDArray[np.integer], rows: int) -> float:
        """PSI of the bins' counts, or sums of weights, of so many rows."""
        # Half a row of the smaller sample is added to every bin of both, so that an empty bin does
        # not make the index infinite, and one that is empty in both adds nothing.
        reference = sum(self.counts)
        added = 0.5 / min(reference, rows)
        shares = [
            (np.asarray(counts, np.float64) / total + added) / (1.0 + added * len(self.counts))
            for counts, total in ((self.counts, reference), (counts_B, rows))
        ]
        return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def drift(
    reference_NF: NDArray[np.floating],
    current_MF: NDArray[np.floating],
    names: Sequence[str],
    weight_M: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """PSI of each named feature; 0 where both are constant and equal.

    Args:
        reference_NF: the training rows.
        current_MF: the newest day's rows.
        names: of the F features.
        weight_M: how many rows each of the newest day's stands for; None: one each.

    Raises:
        DataError: a value is NaN or infinite, or there is no row.
    """
    bins = {name: Bins.of(reference_NF[:, index], name) for index, name in enumerate(names)}
    return drift_of(bins, current_MF, weight_M)


def drift_of(
    bins: Mapping[str, Bins],
    current_MF: NDArray[np.floating],
    weight_M: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """PSI of each feature against bins of the reference; arguments as for `drift`.

    Args:
        bins: of the F features, in their order.
        current_MF: rows to compare.
        weight_M: how many rows each stands for; None: one each.

    Raises:
        DataError: a value is NaN or infinite, or there is no row.
    """
    if not len(current_MF):
        raise DataError("there is no row to compare with the reference")
    scaled_M = None if weight_M is None else weight_M / weight_M.mean()
    found = {}
    for index, (name, one) in enumerate(bins.items()):
        place_M = one.place(current_MF[:, index], name)
        found[name] = one.psi(np.bincount(place_M, scaled_M, len(one.counts)), len(place_M))
    return found


def _require_finite(value_N: NDArray[np.floating], which: str, name: str) -> None:
    bad = int((~np.isfinite(value_N)).sum())
    if bad:
        raise DataError(
            f"{bad} of {len(value_N)} {which} values are NaN or infinite: no drift can be computed",
            where=name,
            remedy="quarantine their ticks (validation), then build the features again",
        )
