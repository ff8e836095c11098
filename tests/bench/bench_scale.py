"""How a night grows with its ticks: `python -m tests.bench.bench_scale [--data URI]`.

Validation and features of instrument-days of 1, 10 and 100 million ticks, on one worker and on two:
seconds and peak memory, and a line fitted through the sizes. Then planning of 250,000
instrument-days, and what one new day of 20 costs. Days are blocks of ticks repeated
(`tests/support/long_days.py`); two workers have one each, with the same ticks.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flows.runs.local import connected
from model_code.market.store import open_market
from model_code.settings import FeatureSpec, NightlySpec, Settings, ValidationSpec
from tests.bench.scale_report import (
    MILLION,
    Aim,
    Measured,
    fitted,
    headline,
    report,
    scale_aims,
)
from tests.support.long_days import copy_day, write_long_day

if TYPE_CHECKING:
    from tasks.caching.stage import RunRef
    from tasks.nightly.records import SourceDay
    from tests.bench.scale_stage import Inputs

out = Console(width=80)
SIMULATED = "simulated:?instruments=1&days=1&minutes=60"
SMALL = 50_000  # ticks of the day that warms a worker
FEW = 5_000_000  # ticks below which a measurement is the median of three
PLANNING_S, NEW_DAY = 30.0, 0.08  # aims


def main(
    data: Annotated[str, typer.Option(help="Market store of the reference ticks.")] = "",
    millions: Annotated[str, typer.Option(help="Simulated ticks a day.")] = "1,10,100",
    reference: Annotated[str, typer.Option(help="Reference ticks a day.")] = "1,10",
    workers: Annotated[str, typer.Option(help="Instrument-days at once.")] = "1,2",
    instruments: Annotated[int, typer.Option(help="Of 250 days to plan; 0: none.")] = 1000,
    minutes: Annotated[float, typer.Option(help="Of each of the 20 days; 0: none.")] = 140.0,
    folder: Annotated[Path | None, typer.Option(help="For temporary files.")] = None,
) -> None:
    """Measure and print."""
    started = time.perf_counter()
    plan = {"simulated": (SIMULATED, _sizes(millions))}
    if data:  # the reference's sizes are fewer, so that all takes minutes
        plan["reference"] = (data, _sizes(reference))
    counts = [int(part) for part in workers.split(",")]
    steps = sum(len(sizes) for _, sizes in plan.values()) * len(counts) * 2
    found: list[Measured] = []
    aims: list[Aim] = []
    with (
        tempfile.TemporaryDirectory(prefix="tickline-scale-", dir=folder) as name,
        _bar(steps + bool(instruments) + bool(minutes)) as step,
    ):
        root = Path(name)
        # what imports Prefect is imported from here on: it reads its server's address once
        with connected(Settings().resolved(home=root / "home")):
            if instruments:
                step(f"planning {instruments * 250:,} days")
                aims.append(planning(root / "planning", instruments))
            if minutes:
                step("a new day of 20")
                aims.append(new_day(root / "new day", minutes))
            for ticks, (uri, sizes) in plan.items():
                found += scale(ticks, uri, sizes, counts, root / ticks, step)
    fits = fitted(found)
    for part in report(found, fits, [*scale_aims(found, fits), *aims]):
        out.print(part, highlight=False)
    out.print(f"[dim]{time.perf_counter() - started:.0f} s in all", highlight=False)
    out.print(headline(found, fits), highlight=False)


def scale(
    ticks: str,
    uri: str,
    sizes: Sequence[int],
    workers: Sequence[int],
    root: Path,
    step: Callable[[str], None],
) -> list[Measured]:
    """Measure both stages at each size and number of workers.

    Args:
        ticks: their name.
        uri: market store; the first instrument-day of its catalogue is repeated.
        sizes: rows of an instrument-day.
        workers: instrument-days at once.
        root: new folder; what is written there is deleted size by size.
        step: told before each measurement.
    """
    from tasks.caching.stage import RunRef
    from tasks.nightly.records import SourceDay
    from tests.bench.scale_stage import at_once

    store = open_market(uri)
    date = store.catalog()[0].date
    block = store.read(store.catalog()[0])
    symbols = [f"S{number}.{ticks}" for number in range(max(workers))]

    def written(rows: int) -> "tuple[RunRef, list[SourceDay]]":
        """A market of days of this length, and a run with a home of its own."""
        market = root / f"{rows}"
        write_long_day(market, block, rows, symbols[0], date)
        for symbol in symbols[1:]:
            copy_day(market, symbols[0], symbol, date)
        settings = Settings().resolved(home=market / "home")
        days = [
            SourceDay(market=str(market), date=date, symbol=symbol, digest="", simulated=True)
            for symbol in symbols
        ]
        return RunRef(settings=settings, mlflow_run_id="", flow_run_id=""), days

    run, days = written(SMALL)
    validation: Inputs = (run, days[0], ValidationSpec())
    (warm,) = at_once("validation", [validation], None, 1)
    small = {
        "validation": validation,
        "features": (run, warm.result.day, (), FeatureSpec(), ()),
    }
    found = []
    for rows in sizes:
        run, days = written(rows)
        for count in workers:
            inputs: list[Inputs] = [(run, day, ValidationSpec()) for day in days[:count]]
            for stage, little in small.items():
                step(f"{rows / MILLION:g}M {ticks}, {stage}, {count} workers")
                ended = at_once(stage, inputs, little, 3 if rows < FEW else 1)
                seconds, peak = (
                    max(getattr(one, name) for one in ended) for name in ("seconds", "peak_gib")
                )
                found.append(Measured(ticks, stage, count, rows, seconds, peak))
                if stage == "validation":
                    inputs = [(run, one.result.day, (), FeatureSpec(), ()) for one in ended]
            shutil.rmtree(run.store.root)
        shutil.rmtree(root / f"{rows}")
    return found


def planning(root: Path, instruments: int) -> Aim:
    """Plan 250 days of the instruments from a home folder that knows their hashes."""
    from tests.bench import bench_planning

    days = 250
    root.mkdir()
    market = root / "market"
    bench_planning.linked(
        market, "quotes/symbol={symbol}/date={date}.parquet", bench_planning.quotes,
        instruments, days,
    )  # fmt: skip
    time.sleep(2.5)  # younger files are not remembered
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        chosen = bench_planning.planned(str(market), root / "home", days)
        seconds.append(time.perf_counter() - started)
    shutil.rmtree(root)
    return Aim(
        f"planning {chosen:,} days",
        f"{seconds[1]:.1f} s, the first time {seconds[0]:.1f} s",
        f"under {PLANNING_S:g} s",
        seconds[1] < PLANNING_S,
    )


def new_day(root: Path, minutes: float) -> Aim:
    """Features of a new day beside those of 20 days."""
    from tests.bench import bench_new_day

    days = bench_new_day.DAYS
    uri = f"simulated:?instruments=1&days={days + 2}&minutes={minutes}"
    spec = NightlySpec(market=uri, train_days=days - 1)
    _, full, new = bench_new_day.nights(Settings().resolved(home=root), spec)
    shutil.rmtree(root)
    return Aim(
        f"a new day of {days}", f"{new / full:.1%} of {full:.1f} s",
        f"at most {NEW_DAY:.0%}", new / full <= NEW_DAY,
    )  # fmt: skip


def _sizes(millions: str) -> list[int]:
    return sorted(round(float(part) * MILLION) for part in millions.split(",") if part)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar; call it with what is measured next."""
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        bar.add_task("", total=total, completed=-1)

        def step(text: str) -> None:
            bar.update(bar.task_ids[0], description=text, advance=1)

        yield step
        step("done")


if __name__ == "__main__":
    typer.run(main)
