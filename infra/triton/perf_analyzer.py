"""NVIDIA's `perf_analyzer`, if it is installed: an independent measurement at a fixed rate.

Source: github.com/triton-inference-server/perf_analyzer, docs/cli.md (the CSV of `-f`).
"""

import csv
import shutil
import subprocess
import tempfile
from pathlib import Path

from model_code.errors import ServingError
from model_code.settings import FEATURE_COUNT, INPUT_NAME, MODEL_NAME, SEQUENCE_LENGTH

TOOL = "perf_analyzer"
MOST_S = 300.0


def command(url: str, rate_hz: float, seconds: float, report: Path) -> list[str]:
    """Its command line: windows of zeros, because its random bytes contain NaN."""
    return [
        TOOL,
        f"-m{MODEL_NAME}",
        f"-u{url}",
        "-igrpc",
        "--async",
        f"--shape={INPUT_NAME}:{SEQUENCE_LENGTH},{FEATURE_COUNT}",
        "--input-data=zero",
        f"--request-rate-range={rate_hz:g}",
        f"--measurement-interval={round(seconds * 1e3)}",
        "--stability-percentage=50",
        "--percentile=99",
        f"-f{report}",
    ]


def open_loop_ms(url: str, rate_hz: float, seconds: float) -> tuple[float, float] | None:
    """p50 and p99 in ms of single windows at a fixed rate; None if it is not installed.

    Args:
        url: gRPC host:port of a server that serves the model.
        rate_hz: requests per second.
        seconds: of one measurement; it makes at least three.

    Raises:
        ServingError: it fails, or writes no figures.
    """
    if shutil.which(TOOL) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.csv"
        argv = command(url, rate_hz, seconds, report)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=MOST_S, check=False)
        if done.returncode or not report.is_file():
            raise ServingError(
                f"{TOOL} failed with exit status {done.returncode}: "
                f"{(done.stdout + done.stderr).strip()[-300:]}",
                where=" ".join(argv),
                remedy="run this command by hand, or take perf_analyzer out of PATH",
            )
        with report.open(newline="") as file:
            row = next(csv.DictReader(file), {})
    try:
        return float(row["p50 latency"]) / 1e3, float(row["p99 latency"]) / 1e3
    except (KeyError, ValueError) as error:
        raise ServingError(
            f"{TOOL} wrote a report without p50 and p99 latency: {', '.join(row)}",
            where=TOOL,
            remedy="use a version of 2.40 or later",
        ) from error
