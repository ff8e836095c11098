"""A column of the feature table: an array, or the files of many shards read as one.

Shapes: N rows of all shards, in order, G groups of T row numbers.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Column(Protocol):
    """What readers of a column use; every numpy array has it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one number."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        ...

    @property
    def ndim(self) -> int:
        """Length of the shape."""
        ...

    def __len__(self) -> int:
        """Rows."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of a slice or of an array of row numbers."""
        ...


class ShardedColumn:
    """One `.npy` file of each shard, memory-mapped, read as one array (N, ...).

    Args:
        paths: of the shards' files, in order; at least one, all of one type and row shape.
        stays_open: keep every file mapped, which needs one file descriptor each. Otherwise each
            access maps the files that it reads.
    """

    def __init__(self, paths: Sequence[Path], *, stays_open: bool = False) -> None:
        self._paths = tuple(paths)
        parts = [_mapped(path) for path in paths]
        self._open = parts if stays_open else None
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.dtype: np.dtype[Any] = parts[0].dtype
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *parts[0].shape[1:])

    @property
    def ndim(self) -> int:
        """Length of the shape."""
        return len(self.shape)

    def __len__(self) -> int:
        """Rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice | npt.NDArray[np.integer]) -> npt.NDArray[Any]:
        """The rows of a slice, or of an array of row numbers of any shape.

        Raises:
            IndexError: a row number is out of range.
            TypeError: neither a slice of step 1 nor an array of integers.
        """
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._slice(start, max(start, stop))
        elif isinstance(rows, np.ndarray) and np.issubdtype(rows.dtype, np.integer):
            return self._take(rows)
        raise TypeError(f"a sharded column has no rows {rows!r}: pass a slice or an integer array")

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """All rows, in memory.

        Raises:
            ValueError: `copy` is False.
        """
        if copy is False:
            raise ValueError("a sharded column is no array without a copy")
        return self[:].astype(dtype or self.dtype, copy=bool(copy))

    def _part(self, number: int) -> npt.NDArray[Any]:
        return _mapped(self._paths[number]) if self._open is None else self._open[number]

    def _slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        if start == stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        first, last = np.searchsorted(self._starts, (start, stop - 1), "right") - 1
        found = [
            self._part(part)[max(start - self._starts[part], 0) : stop - self._starts[part]]
            for part in range(first, last + 1)
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _take(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[Any]:
        row_GT = np.atleast_2d(rows).reshape(-1, rows.shape[-1] if rows.ndim > 1 else 1)
        if not row_GT.size:
            return np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        low, high = row_GT.min(), row_GT.max()
        if low < -len(self) or high >= len(self):
            raise IndexError(f"rows {low} to {high} of {len(self)}")
        if low < 0:
            row_GT = np.where(row_GT < 0, row_GT + len(self), row_GT)
        part_G = self._parts_of(row_GT.min(axis=1))
        if (part_G != self._parts_of(row_GT.max(axis=1))).any():  # a window lies in one shard
            row_GT = row_GT.reshape(-1, 1)
            part_G = self._parts_of(row_GT[:, 0])
        # of 8 or 16 bits, so that numpy sorts by radix
        order_G = np.argsort(part_G.astype(np.min_scalar_type(len(self._paths))), kind="stable")
        part_G = part_G[order_G]
        local_GT = row_GT[order_G] - self._starts[part_G, None]
        by_part = np.empty((*row_GT.shape, *self.shape[1:]), self.dtype)
        edges = np.searchsorted(part_G, np.arange(len(self._paths) + 1)).tolist()
        for part, (first, last) in enumerate(pairwise(edges)):
            if first < last:  # the rows are in range: "clip" writes them without a copy between
                here = slice(first, last)
                self._part(part).take(local_GT[here], 0, by_part[here], "clip")
        found = np.empty_like(by_part)
        found[order_G] = by_part
        return found.reshape(*rows.shape, *self.shape[1:])

    def _parts_of(self, row_G: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
        return np.searchsorted(self._starts, row_G, "right") - 1


def _mapped(path: Path) -> npt.NDArray[Any]:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
