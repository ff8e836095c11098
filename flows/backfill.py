"""Run the nightly of each past date in a range, oldest first, optionally in parallel.

find dates ─ night ─ night ─ ... ─ table   (one process per date; finished stages come back Cached)

Dates run on this machine or on the workers of a cluster. On each machine a date measures its
engines while no other date of the backfill computes.

Resumable: stages are cached by content, so a second run continues at the first missing stage.
"""

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.runs.backfill_night import BackfillNight, BackfillOrder
from infra.cluster.runner import task_runner
from infra.servers import environment
from model_code.errors import ConfigError, DataError
from model_code.market.store import open_market
from model_code.settings import NightlySpec, Settings
from tasks.caching.fan_out import in_turn
from tasks.caching.stage import announced
from tasks.nightly.find_days import SIMULATED
from tasks.runs.console import console
from tasks.runs.lifecycle import exclusive, logged
from tasks.runs.page import say


@flow(
    name="backfill",
    flow_run_name="backfill {start} to {end}",
    description=__doc__,
    persist_result=False,
)
@logged
def backfill(
    spec: NightlySpec, start: dt.date, end: dt.date, parallel: int | None = None
) -> tuple[BackfillNight, ...]:
    """Train and judge on each date of the range that the store holds; register nothing.

    Args:
        spec: as for the nightly; the store defaults to TICKLINE_MARKET.
        start: first date to judge on.
        end: last date, included.
        parallel: dates at a time; None: one, or as many as the cluster has workers.

    Raises:
        ConfigError: the store has no such dates.
        DataError: some dates failed, the others are done; the message lists each with its cause.
    """
    settings = Settings().resolved()
    spec = spec.model_copy(update={"market": spec.market or settings.market or SIMULATED})
    dates = dates_to_judge(spec, start, end)
    name = str(flow_run.name)
    order = {"settings": settings, "spec": spec, "tags": (name, str(flow_run.id))}
    calls = [order | {"date": date} for date in dates]
    with exclusive(settings), _runner(settings.cluster, parallel) as runner:
        at_a_time = parallel or (len(dates) if settings.cluster else 1)
        where = f"on {settings.cluster}" if settings.cluster else "here"
        console.print(f"[bold]{name}[/]: {len(dates)} dates {where}")
        results = []
        for night in in_turn(runner, run_date, calls, at_a_time):
            console.print(f"  {night.date}  {night.verdict or night.failure}")
            say(night.line)
            results.append(night)
    create_table_artifact(
        [result.model_dump() for result in results], key="backfill", description="One row per date."
    )
    failed = [result for result in results if result.failure]
    if failed:
        raise DataError(
            "\n".join(f"{result.date}: {result.failure}" for result in failed),
            where=str(spec.market),
            remedy="fix the causes, then run the same backfill again: "
            "finished stages come back Cached",
        )
    return tuple(results)


@task(**announced("find dates"))
def dates_to_judge(spec: NightlySpec, start: dt.date, end: dt.date) -> tuple[dt.date, ...]:
    """Return the store's dates in the range that have an earlier date to train on."""
    market = str(spec.market)
    held = sorted({day.date for day in open_market(market).catalog()})
    chosen = tuple(date for date in held[1:] if start <= date <= end)
    if not chosen:
        raise ConfigError(
            f"no date to backfill from {start} to {end}",
            where=market,
            remedy=f"the store holds {held[0]} to {held[-1]}" if held else "the store is empty",
        )
    return chosen


def _runner(cluster: str | None, parallel: int | None) -> TaskRunner[Any]:
    return task_runner(cluster) if cluster else ThreadPoolTaskRunner(max_workers=parallel or 1)


@task(name="night", task_run_name="night {date}", cache_policy=NO_CACHE, persist_result=False)
def run_date(
    settings: Settings, spec: NightlySpec, date: dt.date, tags: tuple[str, str]
) -> BackfillNight:
    """Run one date's nightly in a process of its own, on the machine where this task runs."""
    folder = settings.home / "backfill"
    folder.mkdir(parents=True, exist_ok=True)
    order_path, result_path = folder / f"{date}.order.json", folder / f"{date}.json"
    order = BackfillOrder(spec=spec.model_copy(update={"test_date": date.isoformat()}), tags=tags)
    order_path.write_text(order.model_dump_json())
    result_path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "flows.runs.backfill_night", str(order_path), str(result_path)]
    server = {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    code = _run_child(command, environment(settings) | server)
    if not result_path.exists():
        return BackfillNight(
            date=date.isoformat(), failure=f"its process exited with status {code}"
        )
    return BackfillNight.model_validate_json(result_path.read_bytes())


def _run_child(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command that exits if this process dies; return its status."""
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.exit_with_parent", *command],
        stdin=subprocess.PIPE,  # the system closes it when this process dies
        env=os.environ | dict(variables),
        cwd=Path(__file__).resolve().parents[1],
    )
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        if process.stdin:
            process.stdin.close()
