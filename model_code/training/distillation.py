"""Distillation: targets between the label and what boosting on other windows predicts.

The teacher of a window is gradient boosting that was fitted out of fold: the training windows are
cut in time, at the same instants for all instruments, into contiguous blocks. For each block,
boosting is fitted on the others and stops early on the next one. A window whose rows or label
share an instant with the block takes part in neither, so no teacher has seen a row or a label of
the windows it teaches. Validation and test windows take no part at all.

Sources: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv
1503.02531; out of fold as in Wolpert 1992, "Stacked Generalization"; purged as in López de Prado
2018, "Advances in Financial Machine Learning", ch. 7.

Shapes: B windows, given by the rows they end on, N table rows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_code.errors import ConfigError, DataError
from model_code.features.column import Column
from model_code.models.boosting import fit_boosting
from model_code.models.summaries import summaries
from model_code.settings import SEQUENCE_LENGTH

BLOCKS = 5
Ends = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Instants:
    """When the table's rows arrived, and how far labels look ahead.

    Attributes:
        timestamp_N: int64, ns UTC.
        horizon_ms: of the label.
    """

    timestamp_N: Column
    horizon_ms: float

    def spans(self, ends_B: Ends) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The first and the last instant (B,) that each window and its label depend on, ns UTC."""
        last_B = self.timestamp_N[ends_B] + round(self.horizon_ms * 1e6)
        return self.timestamp_N[ends_B - (SEQUENCE_LENGTH - 1)], last_B


@dataclass(frozen=True)
class Block:
    """Windows to teach, and those that their teacher is fitted and stopped on."""

    taught_ends: Ends
    fit_ends: Ends
    stop_ends: Ends


def instants_of(weight: float, instants: Instants | None) -> Instants | None:
    """The instants, if the teacher has a weight.

    Raises:
        ConfigError: it has, but there are none.
    """
    if weight and instants is None:
        raise ConfigError(
            "training.distillation needs the instants of the rows",
            remedy="pass them to the training, or set training.distillation=0",
        )
    return instants if weight else None


def blocks(train_ends: Ends, instants: Instants) -> tuple[Block, ...]:
    """Cut the training windows into `BLOCKS` of equal size; every window is in one `taught_ends`.

    Raises:
        DataError: there are too few windows.
    """
    if len(train_ends) < BLOCKS:
        raise _too_few(f"{len(train_ends)} training windows")
    spans = instants.spans(train_ends)
    number_B = np.empty(len(train_ends), np.int64)
    in_time_B = np.argsort(spans[1], kind="stable")
    number_B[in_time_B] = np.arange(len(train_ends)) * BLOCKS // len(train_ends)
    found = []
    for number in range(BLOCKS):
        taught_B, next_B = number_B == number, number_B == (number + 1) % BLOCKS
        apart_B = _apart(*spans, taught_B)
        stop_B = next_B & apart_B
        fit_B = ~(taught_B | next_B) & apart_B & _apart(*spans, next_B)
        found.append(Block(train_ends[taught_B], train_ends[fit_B], train_ends[stop_B]))
    return tuple(found)


def targets(
    features_NF: Column,
    labels_N: np.ndarray,
    train_ends: Ends,
    instants: Instants,
    weight: float,
    seed: int,
) -> np.ndarray:
    """Targets (N,) float32: (1 - weight) * label + weight * the teacher's probability of class 1.

    Not a number at the end of any other window: training on one would fail.

    Args:
        features_NF: raw features, possibly memory-mapped.
        labels_N: 0 or 1 at every training window's end.
        train_ends: row index of each training window's last step.
        instants: of the table's rows.
        weight: of the teacher, 0 to 1.
        seed: of the teachers.

    Raises:
        DataError: there are too few windows, or some teacher's have one class only.
    """
    target_N = np.full(len(labels_N), np.nan, np.float32)
    for number, block in enumerate(blocks(train_ends, instants), 1):
        for ends in (block.fit_ends, block.stop_ends):
            if len(np.unique(labels_N[ends])) < 2:
                raise _too_few(f"teacher {number} has {len(ends)} windows of one class")
        teacher = fit_boosting(features_NF, labels_N, block.fit_ends, block.stop_ends, seed)
        taught = block.taught_ends
        teacher_B = teacher.predict_proba(summaries(features_NF, taught))[:, 1]
        target_N[taught] = (1.0 - weight) * labels_N[taught] + weight * teacher_B
    return target_N


def _apart(
    from_B: npt.NDArray[np.int64], until_B: npt.NDArray[np.int64], of_B: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Windows that share no instant with the span of the chosen ones."""
    apart_B: npt.NDArray[np.bool_] = until_B < from_B[of_B].min()
    apart_B |= from_B > until_B[of_B].max()
    return apart_B


def _too_few(found: str) -> DataError:
    return DataError(
        f"too few windows for training.distillation: {found}",
        remedy="use more days or instruments, or set training.distillation=0",
    )
