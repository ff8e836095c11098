"""Parquet files of sampled decisions: written whole or not at all, deleted by age and size.

A file appears when it is complete, so that every file can be read, also after a SIGKILL.

Shapes: T = 64 steps, F = 16 features.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.live.feedback.spec import LogSpec
from model_code.artifacts import atomic_file
from model_code.live.feedback.frames import Sampled
from model_code.live.feedback.labels import Labelled
from model_code.live.messages import Decision, Latency
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH

WINDOW = SEQUENCE_LENGTH * FEATURE_COUNT
SCHEMA = pa.schema(
    [
        ("symbol", pa.string()),
        ("session", pa.int64()),
        ("sequence", pa.int64()),
        ("exchange_ns", pa.int64()),
        ("local_ns", pa.int64()),
        ("model_version", pa.int32()),
        ("probability", pa.float64()),
        ("threshold", pa.float64()),
        ("decision", pa.bool_()),
        ("flags", pa.string()),
        ("label", pa.int8()),  # null: unlabelled
        ("rate", pa.float64()),  # of the sample
        ("window", pa.list_(pa.float32(), WINDOW)),  # (T, F), row by row
    ]
)
IDLE_S = 0.2
UNKNOWN = Latency(decode=0, features=0, queue=0, inference=0, publish=0)


class LogFiles:
    """Writes decisions in a thread of its own; `add` never waits for the disk.

    Args:
        folder: of the files; created with the first one.
        spec: files and retention.
        say: called with a line about each kind of failure.
    """

    def __init__(self, folder: Path, spec: LogSpec, say: Callable[[str], None]) -> None:
        self._folder, self._spec, self._say = folder, spec, say
        self._queue: queue.Queue[Labelled] = queue.Queue(spec.queue_rows)
        self.written = self.dropped = self.failed = self.deleted = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-files", daemon=True)
        self._thread.start()

    def add(self, rows: Iterable[Labelled]) -> None:
        """Queue decisions; those that find no room are dropped and counted."""
        for row in rows:
            try:
                self._queue.put_nowait(row)
            except queue.Full:
                self.dropped += 1

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, at most so long."""
        self._end.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        rows: list[Labelled] = []
        since = time.monotonic()
        while True:
            ending = self._end.is_set()  # before the queue is read, so that nothing stays in it
            try:
                rows.append(self._queue.get(timeout=0 if ending else IDLE_S))
                while len(rows) < self._spec.rotate_rows:
                    rows.append(self._queue.get_nowait())
            except queue.Empty:
                if ending:
                    break
            late = time.monotonic() - since >= self._spec.rotate_s
            if len(rows) >= self._spec.rotate_rows or late:
                self._write(rows)
                rows, since = [], time.monotonic()
        self._write(rows)

    def _write(self, rows: Sequence[Labelled]) -> None:
        try:
            if rows:
                name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns()}"
                with atomic_file(self._folder / f"{name}-{os.getpid()}.parquet") as temporary:
                    pq.write_table(table(rows, self._spec.rate), temporary, compression="zstd")
                self.written += len(rows)
            self.deleted += retain(self._folder, self._spec)
        except Exception as error:  # a full disk must not end the log
            if not self.failed:
                self._say(f"the prediction log was not written: {error}")
            self.failed += len(rows)


def table(rows: Sequence[Labelled], rate: float) -> pa.Table:
    """The decisions as a table of `SCHEMA`."""
    decisions = [one.sampled.decision for one in rows]
    window_N = np.frombuffer(b"".join(one.sampled.window or b"" for one in rows), np.float32)
    columns: dict[str, object] = {
        name: [getattr(one, name) for one in decisions]
        for name in SCHEMA.names
        if name not in ("flags", "label", "rate", "window")
    }
    columns["flags"] = [",".join(one.flags) for one in decisions]
    columns["label"] = [None if one.label < 0 else one.label for one in rows]
    columns["rate"] = [rate] * len(rows)
    columns["window"] = pa.FixedSizeListArray.from_arrays(pa.array(window_N), WINDOW)
    return pa.table(columns, schema=SCHEMA)


def read(folder: Path) -> Iterator[Labelled]:
    """The decisions of all files, the oldest file first.

    A decision made again after a crash comes as often as it was logged.
    """
    for file in sorted(folder.glob("*.parquet")):
        try:
            found = pq.read_table(file)
        except FileNotFoundError:  # deleted meanwhile
            continue
        window_NW = found["window"].combine_chunks().flatten().to_numpy().reshape(-1, WINDOW)
        rows = found.drop_columns(["window", "rate", "label", "flags"]).to_pylist()
        for place, (row, label) in enumerate(zip(rows, found["label"].to_pylist(), strict=True)):
            decision = Decision(side=None, latency=UNKNOWN, **row)
            features = window_NW[place, -FEATURE_COUNT:].tobytes()
            yield Labelled(Sampled(decision, features), -1 if label is None else label)


def retain(folder: Path, spec: LogSpec) -> int:
    """Delete files that are too old, then the oldest above the size; return how many."""
    known = []
    for path in folder.glob("*.parquet"):
        try:
            found = path.stat()
        except FileNotFoundError:  # another service of the group deleted it
            continue
        known.append((found.st_mtime, found.st_size, path))
    total, deleted = 0, 0
    oldest = time.time() - spec.keep_days * 86_400
    for changed, size, path in sorted(known, reverse=True):
        total += size
        if changed < oldest or total > spec.keep_mib * 2**20:
            path.unlink(missing_ok=True)
            deleted += 1
    return deleted
