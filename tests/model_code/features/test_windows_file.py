"""Files of windows: what is read, and what each other file is refused with."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_code.errors import DataError
from model_code.features.windows_file import is_windows_file, read_windows

X_NTF = np.random.default_rng(3).normal(0.0, 4.0, (5, 64, 16))


def saved(path: Path, array: Any) -> Path:
    """Save under exactly this name, which numpy would change."""
    with path.open("wb") as file:
        np.save(file, array)
    return path


@pytest.mark.parametrize("name", ["w.npy", "w.NPY", "w.Npy"])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4", "longdouble", "i1", "i8", "u2"])
def test_real_numbers_are_read_and_numbered(name: str, kind: str, tmp_path: Path) -> None:
    array = (np.abs(X_NTF) if kind == "u2" else X_NTF).astype(kind)
    path = saved(tmp_path / name, array)
    assert is_windows_file(path)
    x_NTF, names = read_windows(path, 2)
    assert (x_NTF.dtype, names) == (np.dtype(np.float32), ["3", "4"])
    np.testing.assert_array_equal(x_NTF, array[-2:].astype(np.float32))


@pytest.mark.parametrize("name", ["w.npz", "w.NPZ"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_one_array_is_read(name: str, save: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    save(buffer, windows=X_NTF)
    (tmp_path / name).write_bytes(buffer.getvalue())
    x_NTF, names = read_windows(tmp_path / name, 99)
    assert names == ["0", "1", "2", "3", "4"]
    np.testing.assert_array_equal(x_NTF, X_NTF.astype(np.float32))


WRONG_TYPES = {
    "datetime": np.zeros((1, 64, 16), "M8[ns]"),
    "duration": np.zeros((1, 64, 16), "m8[s]"),
    "complex": np.zeros((1, 64, 16), np.complex64),
    "boolean": np.zeros((1, 64, 16), bool),
    "text": np.full((1, 64, 16), "1.0"),
    "bytes": np.full((1, 64, 16), b"1"),
    "structured": np.zeros((1, 64, 16), [("price", "f4")]),
}


@pytest.mark.parametrize("what", WRONG_TYPES)
@pytest.mark.parametrize("name", ["w.npy", "w.npz"])
def test_what_is_no_real_number_is_refused(what: str, name: str, tmp_path: Path) -> None:
    path, array = tmp_path / name, WRONG_TYPES[what]
    if path.suffix == ".npy":
        saved(path, array)
    else:
        np.savez(path, array)
    with pytest.raises(DataError, match="expected real numbers") as caught:
        read_windows(path, 10)
    assert caught.value.where == str(path)
    assert "astype(np.float32)" in caught.value.remedy


@pytest.mark.parametrize("shape", [(), (0, 64, 16), (64, 16), (2, 16, 64), (2, 64, 16, 1)])
def test_another_shape_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = saved(tmp_path / "w.npy", np.zeros(shape, np.float32))
    with pytest.raises(DataError, match="an array of shape"):
        read_windows(path, 10)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_the_window_that_is_not_finite_is_named(value: float, tmp_path: Path) -> None:
    array = X_NTF.copy()
    array[3, 0, 0] = value
    path = saved(tmp_path / "w.npy", array)
    with pytest.raises(DataError, match="window 3 holds NaN, infinity or a number beyond"):
        read_windows(path, 3)
    assert len(read_windows(path, 1)[0]) == 1  # it is not among the windows asked for


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def claimed(windows: int) -> bytes:
    """A file whose header promises more windows than there are."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (windows, 64, 16)}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + bytes(4096)


def deflated() -> bytes:
    """An archive whose compressed bytes are damaged."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, X_NTF)
    content = bytearray(buffer.getvalue())
    content[200:300] = bytes(100)
    return bytes(content)


BROKEN = {
    "empty.npy": (b"", "the file is empty"),
    "empty.NPZ": (b"", "the file is empty"),
    "text.npy": (b"1.0,2.0\n", "the file holds text"),
    "pickle.npy": (b"\x80\x04\x95\x00\xff.", "not written by numpy"),
    "archive.npy": (npz(a=X_NTF), "an .npz file with another name"),
    "array.npz": (npy(X_NTF), "an .npy file with another name"),
    "windows.bin": (npy(X_NTF), "an .npy file with another name"),
    "windows": (npy(X_NTF), "an .npy file with another name"),
    "short.npy": (npy(X_NTF)[:-8], "cannot be read"),
    "head.npy": (npy(X_NTF)[:40], "cannot be read"),
    "huge.npy": (claimed(10**12), "cannot be read"),
    "objects.npy": (npy(np.full((1, 64, 16), None, object)), "cannot be read"),
    "cut.npz": (npz(a=X_NTF)[:-40], "cannot be read"),
    "damaged.npz": (deflated(), "cannot be read"),
    "two.npz": (npz(a=X_NTF, b=X_NTF), "holds 2 arrays, expected one: a, b"),
    "none.npz": (npz(), "holds 0 arrays, expected one: none"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_file_says_what_is_wrong_where_and_what_to_do(
    name: str, tmp_path: Path
) -> None:
    content, message = BROKEN[name]
    path = written(tmp_path / name, content)
    assert is_windows_file(path)
    with pytest.raises(DataError, match=message) as caught:
        read_windows(path, 10)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_an_absent_file_is_an_error_and_a_folder_is_a_market_store(tmp_path: Path) -> None:
    absent = tmp_path / "absent.npy"
    assert is_windows_file(absent)
    with pytest.raises(DataError, match="No such file"):
        read_windows(absent, 10)
    (tmp_path / "store.npy").mkdir()
    assert not is_windows_file(tmp_path / "store.npy")
    with zipfile.ZipFile(tmp_path / "ticks.zip", "w") as archive:
        archive.writestr("ticks.csv", "timestamp")
    assert not is_windows_file(tmp_path / "ticks.zip")
    assert not is_windows_file(written(tmp_path / "ticks.csv", b"timestamp,bid_price\n"))
