"""Windows saved by numpy: an .npy file, or an .npz file of one array.

Shapes: N windows, T = 64 steps, F = 16 features.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH

MAGIC = {".npy": (b"\x93NUMPY",), ".npz": (b"PK\x03\x04", b"PK\x05\x06")}
REAL = "fiu"  # numpy's kinds: floats, signed and unsigned integers
REMEDY = f"save windows (N, {SEQUENCE_LENGTH}, {FEATURE_COUNT}): np.save('windows.npy', x_NTF)"


def is_windows_file(path: Path) -> bool:
    """Whether this is to be read as a file of windows: by its name, or because numpy wrote it."""
    if path.suffix.lower() in MAGIC:
        return not path.is_dir()
    return _kind(path) == ".npy"


def read_windows(path: Path, last: int) -> tuple[NDArray[np.float32], list[str]]:
    """The last windows of a file, float32 (N, 64, 16), and their numbers in the file.

    Args:
        path: that `is_windows_file` holds for.
        last: number of windows.

    Raises:
        DataError: it cannot be read, is not such a file, or holds anything but windows of finite
            real numbers.
    """
    named, found = path.suffix.lower(), _kind(path)
    if found is None:
        raise DataError(_what_else(path), where=str(path), remedy=REMEDY)
    if found != named:
        raise DataError(
            f"the file is an {found} file with another name",
            where=str(path),
            remedy=f"rename it: {path.stem}{found}",
        )
    try:
        array = _array(path, found)
    except DataError:
        raise
    except Exception as error:  # of many kinds: numpy parses the header as Python
        raise DataError(
            f"the file cannot be read: {error or type(error).__name__}",
            where=str(path),
            remedy=f"it may be cut off or damaged; {REMEDY}",
        ) from error
    _check(array, path)
    first = max(len(array) - last, 0)
    with np.errstate(over="ignore"):  # overflow is checked below
        x_NTF = np.array(array[first:], np.float32)
    bad = np.flatnonzero(~np.isfinite(x_NTF).all(axis=(1, 2)))
    if len(bad):
        raise DataError(
            f"window {first + bad[0]} holds NaN, infinity or a number beyond float32",
            where=str(path),
            remedy="fix the features first",
        )
    return x_NTF, [str(number) for number in range(first, len(array))]


def _kind(path: Path) -> str | None:
    """The suffix that numpy gives a file that begins like this one; None for other files."""
    try:
        with path.open("rb") as file:
            head = file.read(6)
    except OSError:
        return None
    return next((kind for kind, magic in MAGIC.items() if head.startswith(magic)), None)


def _what_else(path: Path) -> str:
    """What a file is that numpy did not write."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"the file cannot be read: {error.strerror}"
    if not head:
        return "the file is empty"
    try:
        head.decode()
    except UnicodeDecodeError:
        return "the file was not written by numpy"
    return "the file holds text, not windows"


def _array(path: Path, kind: str) -> NDArray[Any]:
    if kind == ".npy":
        # a header that promises more than the file holds is an error, not a large allocation
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    # opened here: numpy leaves the file of a damaged archive open
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if len(archive.files) != 1:
            raise DataError(
                f"the file holds {len(archive.files)} arrays, expected one: "
                f"{', '.join(archive.files) or 'none'}",
                where=str(path),
                remedy="save the windows alone: np.savez('windows.npz', x_NTF)",
            )
        return np.asarray(archive[archive.files[0]])


def _check(array: NDArray[Any], path: Path) -> None:
    shape = array.shape
    if array.dtype.kind not in REAL:
        raise DataError(
            f"the file holds {array.dtype}, expected real numbers",
            where=str(path),
            remedy="windows are floats: x_NTF.astype(np.float32)",
        )
    if len(shape) != 3 or shape[1:] != (SEQUENCE_LENGTH, FEATURE_COUNT) or not shape[0]:
        raise DataError(
            f"the file holds an array of shape {shape}, "
            f"expected (N, {SEQUENCE_LENGTH}, {FEATURE_COUNT}), N at least 1",
            where=str(path),
            remedy=REMEDY,
        )
