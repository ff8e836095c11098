"""A night's attribution profile: mean |attribution| by feature and lag, and how it has moved.

Shapes: B windows, F features, L lag groups.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_code.attribution.explain import LAGS, Attributions
from model_code.attribution.sample import Sample
from model_code.errors import DataError

ALL = "all"
CHANGED = 3  # features that a drift names
Floats = NDArray[np.float64]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ProfileSlice(_Row):
    """Mean |attribution| in log-odds, (F, L), over the windows of a slice.

    Attributes:
        dimension: "all", "instrument" or "label".
        name: of the slice.
        windows: explained windows in it.
        mean_abs: by feature and lag group.
    """

    dimension: str
    name: str
    windows: int
    mean_abs: tuple[tuple[float, ...], ...]

    @property
    def shares(self) -> list[float]:
        """Share of each feature in the sum over features and lags; the sum is 1."""
        mean_abs_FL = np.array(self.mean_abs)
        return [float(share) for share in mean_abs_FL.sum(axis=1) / mean_abs_FL.sum()]


class Profile(_Row):
    """What a model looks at on one night's test windows.

    Attributes:
        features: names, in column order.
        lags: names of the lag groups.
        windows: explained windows.
        background: windows that masked values come from, for each explained one.
        slices: all windows first, then each instrument and label.
        noise: distance (`distance`) of the profiles of two halves of the windows; None if there
            are too few windows.
        additivity_error: largest |sum of the attributions + base - output|, log-odds.
    """

    features: tuple[str, ...]
    lags: tuple[str, ...]
    windows: int
    background: int
    slices: tuple[ProfileSlice, ...]
    noise: float | None
    additivity_error: float

    @classmethod
    def of(
        cls,
        found: Attributions,
        sample: Sample,
        features: list[str],
        symbol_B: NDArray[np.str_],
        label_B: NDArray[np.integer],
        background: int,
    ) -> Self:
        """Summarise attributions by the sample's weights.

        Raises:
            DataError: no feature changes the model's output.
        """
        if not np.abs(found.value_BFL).max() > 0.0:
            raise DataError("no feature changes the model's output on any explained window")
        inside = [(ALL, ALL, np.ones(len(label_B), bool))]
        inside += [("instrument", str(name), symbol_B == name) for name in np.unique(symbol_B)]
        inside += [("label", str(label), label_B == label) for label in np.unique(label_B)]
        slices = tuple(
            ProfileSlice(
                dimension=dimension,
                name=name,
                windows=int(own_B.sum()),
                mean_abs=tuple(tuple(row) for row in _mean_abs(found, sample, own_B).tolist()),
            )
            for dimension, name, own_B in inside
        )
        halves = [
            dict(zip(features, _mean_abs(found, sample, half_B).sum(axis=1), strict=True))
            for half_B in (sample.half_B, ~sample.half_B)
            if found.value_BFL[half_B].any()
        ]
        return cls(
            features=tuple(features),
            lags=tuple(name for name, _, _ in LAGS),
            windows=len(label_B),
            background=background,
            slices=tuple(each for each in slices if np.any(each.mean_abs)),
            noise=distance(*halves) if len(halves) == 2 else None,
            additivity_error=found.additivity_error,
        )

    @property
    def shares(self) -> dict[str, float]:
        """Share of each feature over all windows, the largest first."""
        found = dict(zip(self.features, self.slices[0].shares, strict=True))
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def lag_shares(self) -> dict[str, float]:
        """Share of each lag group over all windows."""
        mean_abs_FL = np.array(self.slices[0].mean_abs)
        found_L = mean_abs_FL.sum(axis=0) / mean_abs_FL.sum()
        return dict(zip(self.lags, found_L.tolist(), strict=True))

    @property
    def line(self) -> str:
        """The three features with the largest shares."""
        return _most(self.shares)

    def metrics(self) -> dict[str, float | None]:
        """Shares and noise by metric name."""
        return {
            **{f"attribution/{name}": share for name, share in self.shares.items()},
            **{f"attribution_lag/{name}": share for name, share in self.lag_shares.items()},
            "attribution_windows": self.windows,
            "attribution_noise": self.noise,
        }

    def markdown(self) -> str:
        """Features by lag over all windows, and the first three features of each slice."""
        mean_abs = dict(zip(self.features, self.slices[0].mean_abs, strict=True))
        lines = [
            f"| feature | share | {' | '.join(self.lags)} |",
            "|---|" + "---:|" * (1 + len(self.lags)),
        ]
        lines += [
            f"| {name} | {share:.1%} | {' | '.join(f'{value:.3f}' for value in mean_abs[name])} |"
            for name, share in self.shares.items()
        ]
        shares = " | ".join(f"{share:.1%}" for share in self.lag_shares.values())
        lines += [f"| all | 100% | {shares} |", ""]
        lines += [
            f"Mean absolute Shapley value of the log-odds, by feature and rows before the newest, "
            f"over {self.windows} test windows, weighted by instrument and label. Masked values "
            f"come from {self.background} training windows of the instrument. Largest error of "
            f"the sums: {self.additivity_error:.0e}.",
            "",
            "| slice | windows | looks most at |",
            "|---|---:|---|",
        ]
        for each in self.slices[1:]:
            shares_of = dict(zip(self.features, each.shares, strict=True))
            lines.append(f"| {each.dimension} {each.name} | {each.windows} | {_most(shares_of)} |")
        return "\n".join([*lines, ""])


class Drift(_Row):
    """How the shares have moved since another night.

    Attributes:
        against: whose profile it is compared with.
        distance: share of the attribution that moved between features (`distance`).
        noise: the larger distance of two halves of one night's windows; None if unknown.
        changed: the features whose share changed most, with the share there and here.
    """

    against: str
    distance: float
    noise: float | None
    changed: tuple[tuple[str, float, float], ...]

    @classmethod
    def between(cls, old: Profile, new: Profile, against: str) -> Self:
        """Compare two profiles; a feature that only one of them has counts with 0 in the other."""
        before, after = old.shares, new.shares
        names = sorted(
            {*before, *after}, key=lambda name: -abs(after.get(name, 0.0) - before.get(name, 0.0))
        )
        known = [noise for noise in (old.noise, new.noise) if noise is not None]
        return cls(
            against=against,
            distance=distance(before, after),
            noise=max(known, default=None),
            changed=tuple(
                (name, before.get(name, 0.0), after.get(name, 0.0)) for name in names[:CHANGED]
            ),
        )

    @property
    def line(self) -> str:
        """One sentence: how much moved, the noise, and what changed most."""
        noise = "" if self.noise is None else f" (halves of one night differ by {self.noise:.0%})"
        changed = ", ".join(f"{name} {old:.0%} to {new:.0%}" for name, old, new in self.changed)
        return (
            f"{self.distance:.0%} of the attribution moved between features since "
            f"{self.against}{noise}; most: {changed}"
        )


def distance(old: Mapping[str, float], new: Mapping[str, float]) -> float:
    """Total variation distance of two profiles, each divided by its sum: 0 equal, 1 disjoint."""
    before, after = sum(old.values()), sum(new.values())
    names = {*old, *new}
    moved = sum(abs(old.get(name, 0.0) / before - new.get(name, 0.0) / after) for name in names)
    return float(moved / 2)


def _mean_abs(found: Attributions, sample: Sample, own_B: NDArray[np.bool_]) -> Floats:
    """Weighted mean |attribution| over the windows of a slice, (F, L)."""
    weight_B = sample.weight_B[own_B] / sample.weight_B[own_B].sum()
    mean_abs_FL: Floats = np.tensordot(weight_B, np.abs(found.value_BFL[own_B]), axes=1)
    return mean_abs_FL


def _most(shares: Mapping[str, float]) -> str:
    first = sorted(shares.items(), key=lambda item: -item[1])[:CHANGED]
    return ", ".join(f"{name} {share:.0%}" for name, share in first)
