"""Time-ordered split with purge and embargo: train, validation, and the newest day as the test.

All instruments share two boundaries in time: the start of validation, and midnight UTC of the test
date. Before a boundary, windows whose label horizon reaches it are purged. After it, windows whose
64 rows of lookback begin within the embargo are excluded. A part therefore uses no row and no
instant that the windows or labels of the part before it use (López de Prado 2018, 'Advances in
Financial Machine Learning', ch. 7).

A part with too many windows is thinned at an even stride. Where that would leave too few of the
rarer class, validation and test are thinned by class, and their windows have weights (`strata`).
Training windows never are: their class shares set the probabilities.

Rows are read in blocks: memory is for one block, 16 bytes a block, and the chosen windows.

Shapes: B windows, given by the rows they end on, N rows of a block, K blocks, C bins.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import storage_error
from model_code.errors import DataError
from model_code.features.dataset import FeatureTable, TableDay
from model_code.features.strata import Ends, Weights, in_words, shares, stride
from model_code.features.windows import valid_ends
from model_code.settings import SEQUENCE_LENGTH, SplitSpec

BLOCK_ROWS = 1 << 16  # in memory at a time
BIN_BITS = 16

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
    before = [day for day in table.meta.days if day.date < test_date]
    testing = [day for day in table.meta.days if day.date == test_date]
    test_from = int(np.datetime64(test_date, "ns").astype(np.int64))
    validation_from = _quantile(table, before, 1.0 - spec.validation_fraction)
    if validation_from is None:
        raise DataError(
            f"no window of {SEQUENCE_LENGTH} rows with an observed label before {test_date}",
            remedy="add earlier dates, or check for gaps with: tickline data describe",
        )
    parts = {
        "train": _Part(
            table,
            before,
            lambda found: found.last_B < validation_from,
            lambda found: found.last_B + horizon_ns >= validation_from,
            lambda found: np.zeros(len(found.last_B), bool),
        ),
        "validation": _Part(
            table,
            before,
            lambda found: found.last_B >= validation_from,
            lambda found: found.last_B + horizon_ns >= test_from,
            lambda found: found.first_B < validation_from + embargo_ns,
        ),
        "test": _Part(
            table,
            testing,
            lambda found: np.ones(len(found.last_B), bool),
            lambda found: np.zeros(len(found.last_B), bool),
            lambda found: found.first_B < test_from + embargo_ns,
        ),
    }
    limits = (spec.train_windows, spec.validation_windows, spec.test_windows)
    chosen, weights, reports = dict[str, Ends](), dict[str, Weights | None](), {}
    for (name, part), limit in zip(parts.items(), limits, strict=True):
        ends, label_B, weight_B = part.sample(limit, by_class=name != "train")
        _require_both_classes(name, label_B, test_date)
        chosen[name], weights[name] = ends, weight_B
        stamps = table.timestamp_N[ends]
        reports[name] = PartReport(
            candidates=part.candidates,
            purged=part.purged,
            embargoed=part.embargoed,
            kept=part.kept,
            windows=len(ends),
            label_rate=float(np.average(label_B, weights=weight_B)),
            first=_iso(stamps.min()),
            last=_iso(stamps.max()),
            **_sampling(part.positives, label_B, weight_B),
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


class _Windows(NamedTuple):
    """Windows that end in one block of rows of one instrument-day."""

    ends_B: Ends
    first_B: npt.NDArray[np.int64]  # of the first row, ns
    last_B: npt.NDArray[np.int64]  # of the last row, ns
    label_B: npt.NDArray[np.int8]


def _blocks(days: Iterable[TableDay]) -> list[slice]:
    """Rows of the blocks: each begins a window's lookback early, but in its own day."""
    return [
        slice(
            max(day.first, start - SEQUENCE_LENGTH + 1),
            min(start + BLOCK_ROWS, day.first + day.rows),
        )
        for day in days
        for start in range(day.first, day.first + day.rows, BLOCK_ROWS)
    ]


def _windows(table: FeatureTable, rows: slice) -> _Windows:
    label_N, time_N = table.label_N[rows], table.timestamp_N[rows]
    ends = valid_ends(table.segment_N[rows], label_N)
    return _Windows(
        ends + rows.start, time_N[ends - (SEQUENCE_LENGTH - 1)], time_N[ends], label_N[ends]
    )


def _quantile(table: FeatureTable, days: Sequence[TableDay], share: float) -> int | None:
    """The instant, ns, after this share of the windows' last rows; None if there are no windows.

    Exact: it narrows a histogram down to one nanosecond, four passes over fewer and fewer rows.
    """
    blocks = _blocks(days)
    if not blocks:
        return None
    low = min(int(table.timestamp_N[rows][0]) for rows in blocks)
    high = max(int(table.timestamp_N[rows][-1]) for rows in blocks)
    shift, rank = max(0, (high - low).bit_length() - BIN_BITS), -1
    while True:
        count_C = np.zeros(1 << BIN_BITS, np.int64)
        for rows in blocks:
            time_N = table.timestamp_N[rows]
            if time_N[0] <= high and time_N[-1] >= low:
                last_B = _windows(table, rows).last_B
                inside_B = last_B[(last_B >= low) & (last_B <= high)]
                count_C += np.bincount((inside_B - low) >> shift, minlength=len(count_C))
        if rank < 0:
            if not count_C.any():
                return None
            rank = int(count_C.sum() * share)
        reach_C = np.cumsum(count_C)
        place = int(np.searchsorted(reach_C, rank, "right"))
        rank -= int(reach_C[place] - count_C[place])
        low += place << shift
        high = low + (1 << shift) - 1
        if shift == 0:
            return low
        shift = max(0, shift - BIN_BITS)


Mask = Callable[[_Windows], npt.NDArray[np.bool_]]


class _Part:
    """Counts of one part's windows, and the windows at given places among those kept.

    In memory are two numbers for each block of rows, and the windows asked for.
    """

    def __init__(
        self,
        table: FeatureTable,
        days: Sequence[TableDay],
        candidate: Mask,
        purge: Mask,
        embargo: Mask,
    ) -> None:
        self._table, self._blocks = table, _blocks(days)
        self._masks = candidate, purge, embargo
        self.candidates = self.purged = self.embargoed = 0
        self._count_K2 = np.zeros((len(self._blocks), 2), np.int64)  # kept, by block and class
        for place, rows in enumerate(self._blocks):
            found = _windows(table, rows)
            candidate_B, purge_B, embargo_B = (mask(found) for mask in self._masks)
            self.candidates += int(candidate_B.sum())
            self.purged += int((candidate_B & purge_B).sum())
            self.embargoed += int((candidate_B & embargo_B & ~purge_B).sum())
            kept_B = candidate_B & ~purge_B & ~embargo_B
            positive = int((found.label_B[kept_B] == 1).sum())
            self._count_K2[place] = int(kept_B.sum()) - positive, positive

    @property
    def kept(self) -> int:
        """Windows neither purged nor under embargo."""
        return int(self._count_K2.sum())

    @property
    def positives(self) -> int:
        """Opportunities among them."""
        return int(self._count_K2[:, 1].sum())

    def sample(
        self, limit: int, *, by_class: bool
    ) -> tuple[Ends, npt.NDArray[np.int8], Weights | None]:
        """At most `limit` of the kept windows, as `strata.thin` or at an even stride; labels."""
        ends, label_B = self._at(stride(self.kept, limit))
        count_2 = self.kept - self.positives, self.positives
        left = min(int((label_B == value).sum()) for value in (0, 1))
        share_2 = shares(count_2, left, limit) if by_class else None
        if share_2 is None:
            return ends, label_B, None
        found = [self._at(stride(count_2[value], share_2[value]), value) for value in (0, 1)]
        ends, label_B = (np.concatenate(columns) for columns in zip(*found, strict=True))
        order_B = np.argsort(ends)
        weight_2 = np.array(count_2) / share_2
        return ends[order_B], label_B[order_B], weight_2[label_B[order_B]]

    def _at(
        self, places: npt.NDArray[np.int64], value: int | None = None
    ) -> tuple[Ends, npt.NDArray[np.int8]]:
        """The windows at ascending places among those kept, or those kept of a class."""
        count_K = self._count_K2.sum(axis=1) if value is None else self._count_K2[:, value]
        edges = np.searchsorted(places, np.cumsum([0, *count_K]))
        ends, labels = [np.empty(0, np.int64)], [np.empty(0, np.int8)]
        before = 0
        for block, rows in enumerate(self._blocks):
            own = places[edges[block] : edges[block + 1]] - before
            before += int(count_K[block])
            if len(own):
                found = _windows(self._table, rows)
                candidate_B, purge_B, embargo_B = (mask(found) for mask in self._masks)
                kept_B = candidate_B & ~purge_B & ~embargo_B
                if value is not None:
                    kept_B &= found.label_B == value
                chosen = np.flatnonzero(kept_B)[own]
                ends.append(found.ends_B[chosen])
                labels.append(found.label_B[chosen])
        return np.concatenate(ends), np.concatenate(labels)


def _sampling(
    positives: int, label_B: npt.NDArray[np.int8], weight_B: Weights | None
) -> dict[str, Any]:
    """The report's counts by class, of all kept and of the chosen windows."""
    if weight_B is None:
        return {}
    return {
        "positives": int((label_B == 1).sum()),
        "positives_kept": positives,
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
