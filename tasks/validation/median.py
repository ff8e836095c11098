"""The exact median of numbers that come in chunks and do not fit in memory."""

import tempfile
import weakref
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled

IN_MEMORY = 32 << 20  # bytes; more go to a temporary file
_CHUNK = 1 << 18  # numbers read at once
_BITS = 16

Floats = npt.NDArray[np.float64]


class Median:
    """Keeps the numbers in a temporary file and finds the middle one by its bits, 16 at a time."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._count = 0

    def add(self, values: Floats) -> None:
        """Take the next numbers; none may be NaN."""
        self._file.write(np.ascontiguousarray(values, np.float64).data)
        self._count += len(values)

    @property
    def value(self) -> float | None:
        """The middle number, or the mean of the two in the middle; None without numbers."""
        if not self._count:
            return None
        low, more = self._select((self._count - 1) // 2)
        if self._count % 2 or more:
            return low
        return (low + self._select(self._count // 2)[0]) / 2

    def _select(self, rank: int) -> tuple[float, bool]:
        """The number of a rank in ascending order, and whether the next one equals it."""
        prefix = np.uint64(0)
        for shift in range(64 - _BITS, -1, -_BITS):
            counts = np.zeros(1 << _BITS, np.int64)
            for keys in self._keys():
                _count_digits(keys, np.uint64(shift), prefix, counts)
            below = np.cumsum(counts)
            digit = int(np.searchsorted(below, rank, side="right"))
            rank -= int(below[digit] - counts[digit])
            prefix = np.uint64((int(prefix) << _BITS) | digit)
        bits = int(prefix)
        bits = bits ^ (1 << 63) if bits >> 63 else bits ^ ((1 << 64) - 1)
        return float(np.uint64(bits).view(np.float64)), rank + 1 < int(counts[digit])

    def _keys(self) -> Iterator[npt.NDArray[np.uint64]]:
        """The numbers' bits, turned so that integers are in the order of the numbers."""
        self._file.seek(0)
        while block := self._file.read(8 * _CHUNK):
            bits = np.frombuffer(block, np.uint64)
            yield np.where(bits >> np.uint64(63), ~bits, bits | np.uint64(1 << 63))


@compiled
def _count_digits(key_N, shift, prefix, counts):  # type: ignore[no-untyped-def]
    """Count the digit at `shift` of the keys whose higher digits are `prefix`."""
    sixteen, mask = np.uint64(16), np.uint64(0xFFFF)
    for i in range(len(key_N)):
        key = key_N[i] >> shift
        if shift == np.uint64(48) or key >> sixteen == prefix:
            counts[key & mask] += 1
