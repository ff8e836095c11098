"""Files of the prediction log: whole, bounded, never in the way."""

import os
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.live.feedback.log_files import SCHEMA, WINDOW, LogFiles, retain, table
from infra.live.feedback.spec import LogSpec
from model_code.live.feedback.frames import Sampled
from model_code.live.feedback.labels import Labelled
from model_code.live.messages import Decision, Latency

LATENCY = Latency(decode=1, features=2, queue=3, inference=4, publish=5)


def labelled(sequence: int, label: int = 1) -> Labelled:
    decision = Decision(
        symbol="A", sequence=sequence, session=2, exchange_ns=None, local_ns=sequence * 1000,
        model_version=7, probability=0.25, threshold=0.5, decision=False, side=None,
        latency=LATENCY, flags=("in-process",),
    )  # fmt: skip
    window = np.full(WINDOW, sequence, np.float32).tobytes()
    return Labelled(Sampled(decision, window[:64], window), label)


def test_a_row_holds_the_decision_its_window_and_its_label() -> None:
    found = table([labelled(1, 1), labelled(2, 0), labelled(3, -1)], 0.25)
    assert found.schema == SCHEMA
    assert found["label"].to_pylist() == [1, 0, None]
    assert found["rate"].to_pylist() == [0.25] * 3
    assert found["flags"].to_pylist() == ["in-process"] * 3
    assert found["window"][1].as_py() == [2.0] * WINDOW


def test_what_waits_is_written_at_the_end(tmp_path: Path) -> None:
    lines: list[str] = []
    files = LogFiles(tmp_path, LogSpec(rotate_rows=4), lines.append)
    files.add(labelled(number) for number in range(10))
    files.close()
    found = pq.read_table(tmp_path)
    assert sorted(found["sequence"].to_pylist()) == list(range(10))
    assert (files.written, files.dropped, files.failed, lines) == (10, 0, 0, [])
    assert all(path.suffix == ".parquet" for path in tmp_path.iterdir())


def test_a_slow_disk_drops_rows_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    write = pq.write_table

    def slow(*given: object, **options: object) -> None:
        free.wait(20)
        write(*given, **options)

    monkeypatch.setattr(pq, "write_table", slow)
    files = LogFiles(tmp_path, LogSpec(rotate_rows=2, queue_rows=5), lambda _: None)
    for number in range(50):
        files.add([labelled(number)])  # returns at once
    free.set()
    files.close()
    assert files.dropped > 0
    assert files.written + files.dropped == 50
    assert pq.read_table(tmp_path).num_rows == files.written


def test_a_failed_write_is_said_once_and_the_log_continues(tmp_path: Path) -> None:
    lines: list[str] = []
    (tmp_path / "log").write_text("a file in the folder's place")
    files = LogFiles(tmp_path / "log", LogSpec(rotate_rows=1), lines.append)
    files.add([labelled(1), labelled(2), labelled(3)])
    files.close()
    assert files.failed == 3
    assert len(lines) == 1
    assert "was not written" in lines[0]


def test_old_files_go_first_then_the_oldest_above_the_size(tmp_path: Path) -> None:
    sizes = [300_000] * 5
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(b"x" * size)
        age_s = (5 - number) * 3600 + (90_000 if number == 0 else 0)
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age_s))
    (tmp_path / "other.txt").write_text("not ours")
    assert retain(tmp_path, LogSpec(keep_days=1.0)) == 1  # 0 is older than a day
    assert retain(tmp_path, LogSpec(keep_days=1.0, keep_mib=0.6)) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"3.parquet", "4.parquet", "other.txt"}
