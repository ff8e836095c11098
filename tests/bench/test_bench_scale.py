"""The scale benchmark: a tiny run of the real stages, the fit, the aims and the last line."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tests.bench.scale_report import MILLION, Aim, Measured, fitted, headline, report, scale_aims
from tests.support.long_days import SPACING_NS, copy_day, write_long_day
from tests.support.market import DATES, SYMBOLS, ticks

SIZES = (1, 10, 100)
ROOT = Path(__file__).parents[2]


def measured(
    fixed: float = 0.5, slope: float = 1.0, two: float = 1.0, peak: float = 1.0
) -> list[Measured]:
    """Both stages on a line; on two workers `two` times as long."""
    return [
        Measured(
            "simulated",
            stage,
            workers,
            millions * MILLION,
            (fixed + slope * millions) * (two if workers > 1 else 1.0),
            peak,
        )
        for millions in SIZES
        for workers in (1, 2)
        for stage in ("validation", "features")
    ]


def judged(found: list[Measured]) -> dict[str, Aim]:
    return {aim.name: aim for aim in scale_aims(found, fitted(found))}


def test_a_line_is_found_with_its_fixed_part() -> None:
    for fit in fitted(measured(fixed=2.0, slope=0.25)).values():
        assert fit == pytest.approx((2.0, 0.25, 0.0))


def test_the_last_line_has_deviation_peak_and_speed_up() -> None:
    found = measured(two=1.25, peak=1.375)
    assert headline(found, fitted(found)) == (
        "linear within 0%, peak 1.38 GiB per worker, speed-up of 2 workers 1.60x"
    )


def test_a_stage_of_one_size_does_not_hide_the_others() -> None:
    one = [row._replace(ticks="reference") for row in measured() if row.rows == MILLION]
    assert judged([*one, *measured()])["linear"].met
    alone = judged(one)["linear"]
    assert not alone.met  # a line through one point says nothing
    found = [*one, *measured()]
    assert headline(found, fitted(found)).startswith("linear within 0%, ")


def test_growth_faster_than_the_rows_misses_the_aim() -> None:
    found = [one._replace(seconds=(one.rows / MILLION) ** 1.5) for one in measured()]
    assert judged(measured())["linear"].met
    assert not judged(found)["linear"].met


def test_two_sizes_are_compared_with_one_slope() -> None:
    found = [one for one in measured(fixed=1.0) if one.rows < 50 * MILLION]
    fits = fitted(found)
    assert all(fit.fixed_s == 0.0 and fit.deviation > 0.2 for fit in fits.values())


def test_one_size_shows_nothing_of_the_growth() -> None:
    found = [one for one in measured() if one.rows == MILLION]
    assert not judged(found)["linear"].met
    assert headline(found, fitted(found)).startswith("linear within nan%")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"peak": 2.0}, "peak memory"),
        ({"slope": 1.01}, "both stages, two cores"),
        ({"two": 1.2}, "2 workers"),
    ],
)
def test_each_aim_can_be_missed(change: dict[str, float], name: str) -> None:
    met = {"fixed": 0.0, "slope": 0.9} | {"peak": 1.9, "two": 1.1}
    assert judged(measured(**met))[name].met
    assert not judged(measured(**met | change))[name].met


def test_tables_fit_80_columns_and_say_pass_or_miss() -> None:
    found = measured(peak=2.5)
    aims = [*scale_aims(found, fitted(found)), Aim("planning 250,000 days", "9 s", "", True)]
    console = Console(width=80, record=True, file=io.StringIO())
    for part in report(found, fitted(found), aims):
        console.print(part, highlight=False)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert re.search(r"peak memory\s+│\s+2\.50 GiB\s+│\s+under 2 GiB a worker\s+│\s+miss", text)
    assert re.search(r"planning 250,000 days.*pass", text)


@pytest.mark.parametrize("rows", [1, 700, 1000, 3210])
def test_a_long_day_repeats_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("tests.support.long_days.CHUNK_ROWS", 2000)
    block = ticks(1000)
    write_long_day(tmp_path, block, rows, SYMBOLS[0], DATES[0])
    copy_day(tmp_path, SYMBOLS[0], SYMBOLS[1], DATES[0])
    for symbol in SYMBOLS:
        name = f"symbol={symbol}/date={DATES[0]}.parquet"
        found = pq.ParquetFile(tmp_path / "quotes" / name).read()
        copies = -(-rows // 1000)
        assert found["bid_price"].to_pylist() == (block["bid_price"].to_pylist() * copies)[:rows]
        stamps = found["timestamp"].cast("int64").to_numpy()
        assert (stamps[1:] >= stamps[:-1]).all()
        assert stamps[-1] - stamps[0] <= rows * SPACING_NS * 1.1 + 1000 * SPACING_NS
        assert stamps[-1] < stamps[0] + 86_400 * 10**9


@pytest.mark.slow
@pytest.mark.timeout(1200)  # four processes import everything
def test_the_command_measures_the_real_stages(tmp_path: Path) -> None:
    options = ["--millions", "0.02", "--workers", "1", "--instruments", "0", "--minutes", "0"]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_scale", *options, "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    for stage in ("validation", "features"):
        found = re.search(rf"0.02M simulated\W+{stage}\W+1\W+([\d.]+)\W+", ended.stdout)
        assert found is not None, ended.stdout
    assert re.fullmatch(
        r"linear within nan%, peak [0-3]\.\d\d GiB per worker, speed-up of 2 workers 0\.00x",
        ended.stdout.splitlines()[-1],
    )
    assert list(tmp_path.iterdir()) == []
