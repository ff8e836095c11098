"""Time-ordered split with purge and embargo: train, validation, and the newest day as the test.

All instruments share two boundaries in time: the start of validation, and midnight UTC of the test
date. Before a boundary, windows whose label horizon reaches it are purged. After it, windows whose
64 rows of lookback begin within the embargo are excluded. A part therefore uses no row and no
instant that the windows or labels of the part before it use (López de Prado 2018, 'Advances in
Financial Machine Learning', ch. 7).

A part with too many windows is thinned at an even stride. Where that would leave too few of the
rarer class, validation and test are thinned by class, and their windows have weights (`strata`).
Training windows never are: their class shares set the probabilities.

Shapes: B windows, given by the rows they end on.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import storage_error
from model_code.errors import DataError
from model_code.features.dataset import FeatureTable
from model_code.features.strata import Ends, Weights, in_words, strided, thin
from model_code.features.windows import valid_ends
from model_code.settings import SEQUENCE_LENGTH, SplitSpec

__all__ = ["Ends", "PartReport", "Split", "SplitReport", "require_apart", "split"]


class PartReport(BaseModel):
    """One part's counts of windows: candidates - purged - embargoed = kept, of which `windows`.

    Attributes:
        label_rate: share of opportunities; of a part thinned by class that of all `kept`.
        positives: opportunities among `windows`; None, as the next two, without weights.
        positives_kept: opportunities among `kept`.
        sampling: how many of each class were taken, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: int
    purged: int
    embargoed: int
    kept: int
    windows: int
    label_rate: float
    first: str
    last: str
    positives: int | None = None
    positives_kept: int | None = None
    sampling: str | None = None


class SplitReport(BaseModel):
    """Boundaries and counts of the parts; times are ISO 8601 UTC, of windows' last rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test_date: dt.date
    validation_from: str
    train: PartReport
    validation: PartReport
    test: PartReport


@dataclass(frozen=True)
class Split:
    """Rows on which each part's windows end, in the table's order.

    Attributes:
        validation_weights: how many windows each stands for, float64; None: all weigh the same.
        test_weights: the same of the test windows.
    """

    train_ends: Ends
    validation_ends: Ends
    test_ends: Ends
    report: SplitReport
    validation_weights: Weights | None = None
    test_weights: Weights | None = None

    def save(self, folder: Path) -> None:
        """Write `ends.npz` and `report.json` into `folder`.

        Raises:
            StorageError: the disk is full or the folder not writable.
        """
        arrays = {
            "train": self.train_ends,
            "validation": self.validation_ends,
            "test": self.test_ends,
            "validation_weights": self.validation_weights,
            "test_weights": self.test_weights,
        }
        given = {name: values for name, values in arrays.items() if values is not None}
        report = self.report.model_dump_json(indent=2, exclude_none=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / "ends.npz", **given)  # type: ignore[arg-type]
            (folder / "report.json").write_text(report + "\n")
        except OSError as error:
            raise storage_error(error, folder) from error

    @classmethod
    def load(cls, folder: Path) -> "Split":
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing or unreadable.
        """
        try:
            with np.load(folder / "ends.npz", allow_pickle=False) as ends:
                train, validation, test = (ends[part] for part in ("train", "validation", "test"))
                weights = [ends.get(name) for name in ("validation_weights", "test_weights")]
            report = SplitReport.model_validate_json((folder / "report.json").read_text())
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"not a split: {error}",
                where=str(folder),
                remedy="delete it and run the stage again: tickline nightly --refresh",
            ) from error
        return cls(train, validation, test, report, *weights)


def split(table: FeatureTable, spec: SplitSpec, test_date: dt.date | None = None) -> Split:
    """Split the windows of `table`; the table's `FeatureSpec` gives the label horizon.

    Args:
        table: all instruments and dates; dates after the test date are not used.
        spec: fraction, embargo and the maximum number of windows of each part (a part above it is
            thinned with an even stride, not at random; of validation and test by class, where one
            is rare: `strata.thin`).
        test_date: None means the newest date of the table.

    Raises:
        DataError: fewer than two dates, the test date is missing, or a part is empty or has one
            class only.
    """
    dates = table.meta.dates
    test_date = dates[-1] if test_date is None else test_date
    if test_date not in dates or test_date == dates[0]:
        raise DataError(
            f"the test date {test_date} needs its own ticks and those of an earlier date, "
            f"found {', '.join(map(str, dates))}",
            remedy="add dates to the store, or choose another with --test-date",
        )
    horizon_ns = round(table.meta.spec.horizon_ms * 1e6)
    embargo_ns = round(spec.embargo_ms * 1e6)
    ends = valid_ends(table.segment_N, table.label_N)
    last, first = table.timestamp_N[ends], table.timestamp_N[ends - (SEQUENCE_LENGTH - 1)]

    filled = [day for day in table.meta.days if day.rows]
    day_B = np.searchsorted([day.first for day in filled], ends, side="right") - 1
    before = np.array([day.date < test_date for day in filled], bool)[day_B]
    testing = np.array([day.date == test_date for day in filled], bool)[day_B]
    if not before.any():
        raise DataError(
            f"no window of {SEQUENCE_LENGTH} rows with an observed label before {test_date}",
            remedy="add earlier dates, or check for gaps with: tickline data describe",
        )
    test_from = int(np.datetime64(test_date, "ns").astype(np.int64))
    sorted_at = int(before.sum() * (1.0 - spec.validation_fraction))
    validation_from = int(np.partition(last[before], sorted_at)[sorted_at])

    train, validation = before & (last < validation_from), before & (last >= validation_from)
    parts = {
        "train": (train, last + horizon_ns >= validation_from, np.zeros(len(ends), bool)),
        "validation": (
            validation,
            last + horizon_ns >= test_from,
            first < validation_from + embargo_ns,
        ),
        "test": (testing, np.zeros(len(ends), bool), first < test_from + embargo_ns),
    }
    limits = (spec.train_windows, spec.validation_windows, spec.test_windows)
    chosen, weights, reports = dict[str, Ends](), dict[str, Weights | None](), {}
    for (part, (candidate, purge, embargo)), limit in zip(parts.items(), limits, strict=True):
        purged, embargoed = candidate & purge, candidate & embargo & ~purge
        kept = ends[candidate & ~purge & ~embargo]
        label_B = table.label_N[kept]
        if part == "train":
            chosen[part], weights[part] = strided(kept, limit), None
        else:
            chosen[part], weights[part] = thin(kept, label_B, limit)
        _require_both_classes(part, table.label_N[chosen[part]], test_date)
        reports[part] = PartReport(
            candidates=int(candidate.sum()),
            purged=int(purged.sum()),
            embargoed=int(embargoed.sum()),
            kept=len(kept),
            windows=len(chosen[part]),
            label_rate=float(np.average(table.label_N[chosen[part]], weights=weights[part])),
            first=_iso(table.timestamp_N[chosen[part]].min()),
            last=_iso(table.timestamp_N[chosen[part]].max()),
            **_sampling(label_B, table.label_N[chosen[part]], weights[part]),
        )
    report = SplitReport(test_date=test_date, validation_from=_iso(validation_from), **reports)
    return Split(
        chosen["train"],
        chosen["validation"],
        chosen["test"],
        report,
        weights["validation"],
        weights["test"],
    )


def _sampling(
    kept_B: npt.NDArray[np.int8], label_B: npt.NDArray[np.int8], weight_B: Weights | None
) -> dict[str, Any]:
    """The report's counts by class, of the labels of all kept and of the chosen windows."""
    if weight_B is None:
        return {}
    return {
        "positives": int((label_B == 1).sum()),
        "positives_kept": int((kept_B == 1).sum()),
        "sampling": in_words(label_B, weight_B),
    }


def _require_both_classes(part: str, label_B: npt.NDArray[np.int8], test_date: dt.date) -> None:
    found = np.unique(label_B).tolist()
    if found != [0, 1]:
        raise DataError(
            f"the {part} part has {len(label_B)} windows with labels {found}; "
            "it needs both 0 and 1",
            where=f"test date {test_date}",
            remedy="add dates or instruments, or change horizon_ms and cost_bps",
        )


def _iso(timestamp_ns: int | np.integer[npt.NBitBase]) -> str:
    return f"{np.datetime64(int(timestamp_ns), 'ns')}Z"


def require_apart(table: FeatureTable, chosen: Split) -> None:
    """Check, from the windows themselves, that no part sees the one after it.

    The label horizon of every training and validation window must end before the first row that a
    window of a later part looks back on.

    Raises:
        DataError: windows overlap.
    """
    horizon_ns = round(table.meta.spec.horizon_ms * 1e6)
    parts = (
        ("training", chosen.train_ends),
        ("validation", chosen.validation_ends),
        ("test", chosen.test_ends),
    )
    for number, (part, ends) in enumerate(parts[:-1]):
        reach = int(table.timestamp_N[ends].max()) + horizon_ns
        for later, later_ends in parts[number + 1 :]:
            first = int(table.timestamp_N[later_ends - (SEQUENCE_LENGTH - 1)].min())
            if reach >= first:
                raise DataError(
                    f"labels of {part} windows reach to {_iso(reach)}, but {later} windows look "
                    f"back to {_iso(first)}: the {later} figures would be too good",
                    where=f"test date {chosen.report.test_date}",
                    remedy="split the windows with model_code.features.split.split",
                )
