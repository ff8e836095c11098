"""Picture of an attribution profile: features by lag, and features by slice."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_code.artifacts import atomic_file
from model_code.attribution.profile import Profile

SLICES = 12  # that fit; the rest are in the JSON


def draw_heat_map(profile: Profile, path: Path) -> Path:
    """Draw each cell's share in percent, the feature with the largest share on top.

    Raises:
        StorageError: the file cannot be written.
    """
    features = list(profile.shares)
    order_F = [profile.features.index(name) for name in features]
    mean_abs_FL = np.array(profile.slices[0].mean_abs)[order_F]
    shown = profile.slices[1 : 1 + SLICES]
    by_slice_FS = np.array([each.shares for each in shown]).T[order_F]
    figure = Figure(figsize=(6 + 0.6 * len(shown), 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(len(profile.lags), max(2, len(shown))))
    _cells(left, 100 * mean_abs_FL / mean_abs_FL.sum(), list(profile.lags))
    left.set_yticks(range(len(features)), features)
    left.set(title="by lag", xlabel="rows before the newest")
    _cells(
        right,
        100 * by_slice_FS,
        [
            each.name if each.dimension == "instrument" else f"{each.dimension} {each.name}"
            for each in shown
        ],
    )
    right.set_yticks([])
    right.set(title="by slice")
    figure.suptitle(f"Share of mean |attribution| (%), {profile.windows} windows")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path


def _cells(axes: Axes, percent: np.ndarray, columns: list[str]) -> None:
    axes.imshow(percent, cmap="Blues", aspect="auto", vmin=0.0)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
    dark = percent.max() / 2
    for (row, column), value in np.ndenumerate(percent):
        axes.text(
            column, row, f"{value:.0f}", ha="center", va="center", fontsize=7,
            color="white" if value > dark else "black",
        )  # fmt: skip
