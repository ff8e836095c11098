"""What a new day costs: `python -m tests.bench.bench_new_day [--minutes N]`.

Features and table of 20 simulated days of one instrument, then of the same days moved on by one, as
Prefect stages with their cache. Ticks are validated before the clock starts. Printed is the ratio.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.runs.local import connected
from model_code.settings import NightlySpec, Settings

out = Console()
DAYS = 20


def main(
    minutes: Annotated[float, typer.Option(help="Length of each simulated session.")] = 30.0,
) -> None:
    """Measure and print."""
    folder = Path(tempfile.mkdtemp(prefix="tickline-new-day-"))
    settings = Settings().resolved(home=folder)
    spec = NightlySpec(
        market=f"simulated:?instruments=1&days={DAYS + 2}&minutes={minutes}", train_days=DAYS - 1
    )
    try:
        with connected(settings):
            warm, full, new = nights(settings, spec)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    out.print(f"[dim]one day, process not warm: {warm:.2f} s")
    out.print(f"{DAYS} days of one instrument: {full:.2f} s; one new day: {new:.2f} s")
    out.print(f"ratio {new / full:.1%}")


def nights(settings: Settings, spec: NightlySpec) -> tuple[float, float, float]:
    """Seconds for a first day alone, for 20 later days, and for those moved on by one day."""
    from prefect import flow

    from tasks.caching.stage import RunRef
    from tasks.nightly.feature_table import feature_table
    from tasks.nightly.features import features
    from tasks.nightly.find_days import find_days
    from tasks.nightly.validate import require_passed, validate

    run = RunRef(settings=settings, mlflow_run_id="none", flow_run_id="none")

    @flow(persist_result=False)
    def prepare() -> tuple[float, float, float]:
        whole = find_days(spec.model_copy(update={"train_days": DAYS + 1}))
        days = require_passed(
            run.store, tuple(validate(run, day, spec.validation) for day in whole.days)
        )
        seconds = []
        for chosen in (days[:1], days[1:-1], days[2:]):
            start = time.perf_counter()
            shards = tuple(features(run, day, (), spec.features, ()) for day in chosen)
            feature_table(run, shards, spec.features, {}, whole.simulated)
            seconds.append(time.perf_counter() - start)
        return seconds[0], seconds[1], seconds[2]

    return prepare()


if __name__ == "__main__":
    typer.run(main)
