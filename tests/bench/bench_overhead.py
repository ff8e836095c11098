"""What orchestration costs: `python -m tests.bench.bench_overhead [--data URI] [--spec YAML]`.

The stages by the library alone (no Prefect, no MLflow, no cache), then a whole nightly, each in a
fresh process and from its imports on: torch and its kind are the library's, Prefect and MLflow come
on top. Beside them what is promised: at most 10 s or 5% of the night, whichever is larger.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.options import Data, SpecFile, market_uri, read_spec, settings_from_environment
from model_code.settings import NightlySpec, Settings

out = Console()
ALLOWED_S, ALLOWED = 10.0, 0.05
Measure = Callable[[NightlySpec], dict[str, float]]


class Clock:
    """Seconds by stage, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def restart(self) -> None:
        """Forget what passed since the last lap."""
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def main(data: Data = None, spec: SpecFile = None) -> None:
    """Measure and print."""
    wanted = read_spec(NightlySpec, spec, {"market": market_uri(data, settings_from_environment())})
    folder = Path(tempfile.mkdtemp(prefix="tickline-overhead-"))
    try:
        # homes of their own: what the engines keep for the next build must not serve the other
        library = alone(library_seconds, wanted, folder / "library")
        flow = alone(flow_seconds, wanted, folder / "flow")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    start = flow.pop("server")
    table = Table(
        "stage", "library, s", "flow, s", title="A nightly with and without orchestration"
    )
    for stage, seconds in library.items():
        table.add_row(stage, f"{seconds:.1f}", f"{flow.get(stage, 0.0):.1f}")
    ours = sum(library.values())
    whole = flow["whole flow"]
    table.add_section()
    table.add_row("all", f"{ours:.1f}", f"{whole:.1f}")
    out.print(table)
    allowed = max(ALLOWED_S, ALLOWED * whole)
    # an upper bound: gate, registration and staging, which the library did not do, are counted too
    out.print(
        f"orchestration costs at most {whole - ours:.1f} s of {whole:.1f} s; "
        f"allowed {allowed:.1f} s"
    )
    out.print(f"where no stack is up, Prefect's server starts first: {start:.1f} s more")


def alone(measure: Measure, spec: NightlySpec, home: Path) -> dict[str, float]:
    """Call it in a fresh process with a home of its own."""
    os.environ["TICKLINE_HOME"] = str(home)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, spec).result()


def flow_seconds(spec: NightlySpec) -> dict[str, float]:
    """Seconds of imports, of each stage as Prefect has them, of all, and of the server's start."""
    clock = Clock()
    import flows.nightly  # noqa: F401
    from flows.runs.local import connected, run_nightly

    clock.lap("imports")
    settings = Settings().resolved()
    with connected(settings):
        clock.lap("server")
        outcome = run_nightly(spec, settings)
        clock.lap("run")
        from prefect import get_client

        from flows.runs.find import find_run
        from tasks.runs.task_runs import settled_task_runs

        with get_client(sync_client=True) as client:
            runs = settled_task_runs(client, find_run(outcome.flow_run_id).id)
    whole = clock.seconds["imports"] + clock.seconds.pop("run")
    seconds = clock.seconds | {"whole flow": whole}
    for run in runs:
        stage = re.sub(r"-[0-9a-f]{3}$", "", run.name).split(" ")[0]
        seconds[stage] = seconds.get(stage, 0.0) + run.total_run_time.total_seconds()
    return seconds


def library_seconds(spec: NightlySpec) -> dict[str, float]:
    """Seconds of the same stages called as plain functions, without tracking."""
    clock = Clock()
    import model_code.benchmark.measure
    import model_code.benchmark.reports.plots
    import model_code.features.dataset
    import model_code.models.boosting
    import model_code.training.loop  # noqa: F401
    from model_code.engines.registry import ENGINES

    clock.lap("imports")
    from tasks.nightly.baseline import baseline
    from tasks.nightly.benchmark import benchmark
    from tasks.nightly.build_engine import build_engine
    from tasks.nightly.export import export
    from tasks.nightly.feature_table import feature_table
    from tasks.nightly.features import features, others_of
    from tasks.nightly.find_days import find_days
    from tasks.nightly.find_leaders import find_leaders
    from tasks.nightly.split import split
    from tasks.nightly.train import train  # orchestration's, not counted here
    from tasks.nightly.validate import require_passed, validate
    from tests.bench.bare import bare

    with bare(Settings().home) as run:
        clock.restart()
        plan = find_days.fn(spec)
        clock.lap("find")
        days = tuple(validate.fn(run, day, spec.validation) for day in plan.days)
        ticks = require_passed(run.store, days)
        clock.lap("validate")
        leading = find_leaders.fn(run, ticks, spec.features, plan.test_date)
        shards = []
        for day in ticks:
            seen = leading.leaders.get(day.symbol, ())
            others = others_of(day, ticks, spec.features, seen)
            shards.append(features.fn(run, day, others, spec.features, seen))
        table = feature_table.fn(run, tuple(shards), spec.features, leading.leaders, plan.simulated)
        clock.lap("features")
        windows = split.fn(run, table, spec.split, plan.test_date)
        clock.lap("split")
        boosting = baseline.fn(run, table, windows, spec.training.seed)
        clock.lap("baseline")
        network = train.fn(run, table, windows, spec.network, spec.training)
        clock.lap("train")
        exported = export.fn(run, table, windows, network.model)
        clock.lap("export")
        built = tuple(
            build_engine.fn(
                run,
                name,
                network.model,
                exported,
                network.threshold,
                ENGINES[name].availability(),
            )
            for name in spec.benchmark.measured
        )
        clock.lap("build")
        benchmark.fn(run, table, windows, built, None, boosting, network.threshold, spec.benchmark)
        clock.lap("benchmark")
    return clock.seconds


if __name__ == "__main__":
    typer.run(main)
