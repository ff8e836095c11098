"""Training checkpoints: one file per epoch, the last two kept, with a key of their inputs."""

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_code.artifacts import atomic_file
from model_code.errors import IntegrityError
from model_code.features.column import Column
from model_code.models.network import read_tensors

FORMAT = "tickline-checkpoint-2"
KEEP = 2  # a damaged newest file costs one epoch, not the whole training
ROWS_PER_CHUNK = 1 << 18
_NAME = re.compile(r"epoch-(\d{4,})\.pt")


def key(**inputs: Any) -> str:
    """sha256 over all inputs of the training, given as JSON-able values."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def array_digest(array: np.ndarray) -> str:
    """sha256 over an array's type, shape and bytes, in hex."""
    header = f"{array.dtype}\0{array.shape}\0".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


def rows_digest(table_NF: Column, rows_N: Column) -> str:
    """sha256 over the chosen rows of a table, in hex; read in chunks, the table may be mapped.

    Args:
        table_NF: any numbers (N, F).
        rows_N: boolean, the rows that count.
    """
    found = hashlib.sha256(f"{table_NF.dtype}\0{table_NF.shape[1:]}\0".encode())
    step = max(8, ROWS_PER_CHUNK // 8 * 8)  # whole bytes
    for start in range(0, len(rows_N), step):
        found.update(np.packbits(rows_N[start : start + step]).tobytes())
    for start in range(0, len(table_NF), ROWS_PER_CHUNK):
        rows = slice(start, start + ROWS_PER_CHUNK)
        found.update(np.ascontiguousarray(table_NF[rows][rows_N[rows]]).data)
    return found.hexdigest()


def write(folder: Path, key: str, epoch: int, payload: dict[str, Any]) -> Path:
    """Write the state after `epoch` atomically, then delete all but the newest two.

    Raises:
        StorageError: the file cannot be written; earlier checkpoints are untouched.
    """
    path = folder / f"epoch-{epoch:04d}.pt"
    buffer = io.BytesIO()  # torch would turn a full disk into a RuntimeError
    torch.save({"format": FORMAT, "key": key, "epoch": epoch} | payload, buffer)
    with atomic_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    for old in _newest_first(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path, key: str) -> tuple[dict[str, Any] | None, str]:
    """The newest usable checkpoint of these inputs, and a note on the skipped ones.

    A damaged file, or one of other inputs, is never resumed from: the one before is tried.
    """
    notes = []
    for path in _newest_first(folder):
        try:
            payload = read_tensors(path)
        except IntegrityError as error:
            notes.append(error.what)
            continue
        if payload.get("format") != FORMAT:
            notes.append(f"{path.name} is not a checkpoint of this version")
        elif payload.get("key") != key:
            notes.append(f"{path.name} belongs to other data or another specification")
        else:
            return payload, "; ".join(notes)
    return None, "; ".join(notes)


def discard(folder: Path) -> None:
    """Delete every checkpoint in the folder, before training starts from scratch."""
    for path in _newest_first(folder):
        path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("epoch-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("epoch-")), reverse=True)
