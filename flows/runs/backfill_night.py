"""The nightly of one past date, in its own process.

    python -m flows.runs.backfill_night ORDER RESULT

Like the nightly, but nothing is registered, staged or announced: a backfill never replaces the
serving model or a candidate. Of the dates that run on one machine, one at a time measures its
engines, while the others wait.
"""

import platform
import sys
from pathlib import Path

from filelock import ReadWriteLock
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import atomic_file
from model_code.errors import TicklineError
from model_code.settings import NightlySpec, Settings

EXPERIMENT = "backfill"


class BackfillOrder(BaseModel):
    """Input of one date's process; its JSON is the file ORDER.

    Attributes:
        tags: name and id of the backfill, for the date's flow run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: NightlySpec
    tags: tuple[str, str]


class BackfillNight(BaseModel):
    """Result of one date; its JSON is the file RESULT.

    Attributes:
        failure: why there is no verdict; None if there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str
    verdict: str | None = None
    engine: str | None = None
    auc: float | None = None
    baseline_auc: float | None = None
    mlflow_run_id: str | None = None
    failure: str | None = None

    @property
    def line(self) -> str:
        """The date with its verdict, engine and AUC, or why it has none."""
        if self.failure:
            return f"{self.date}: failed: {self.failure}"
        auc = "" if self.auc is None else f", AUC {self.auc:.4f}"
        return f"{self.date}: {self.verdict}, {self.engine}{auc}"


def run_night(order: BackfillOrder, settings: Settings) -> BackfillNight:
    """Run one date's nightly as a flow run named after the date.

    Raises:
        TicklineError: a stage failed.
    """
    from prefect import flow, tags

    from flows.candidate import build_candidate, judge_candidate
    from model_code.benchmark.result import BenchmarkRun
    from tasks.nightly.find_days import find_days
    from tasks.nightly.gate import read_goals
    from tasks.runs.lifecycle import tracked

    # the cluster's workers run whole dates
    settings = settings.model_copy(update={"mlflow_experiment": EXPERIMENT, "cluster": None})
    date = str(order.spec.test_date)

    # shared by dates that compute, held alone by one that measures
    machine = ReadWriteLock(settings.home / "backfill" / f"{platform.node()}.lock")

    @flow(name="backfill night", flow_run_name=date, persist_result=False)
    def night(spec: NightlySpec) -> BackfillNight:
        goals = read_goals(spec.goals)
        plan = find_days(spec, settings.home)
        with tracked(settings, spec, simulated=plan.simulated) as run:
            with machine.read_lock():
                candidate = build_candidate(run, spec, plan)
            with machine.write_lock():
                measured, judged = judge_candidate(run, spec, plan, candidate, None, goals)
        rows = BenchmarkRun.load(run.store.open(measured.folder)).result.rows
        return BackfillNight(
            date=date,
            verdict=judged.verdict.verdict,
            engine=judged.engine,
            auc=next(row.quality.auc for row in rows if row.engine == judged.engine),
            baseline_auc=candidate.baseline.metrics["auc"],
            mlflow_run_id=run.mlflow_run_id,
        )

    with tags(*order.tags):
        return night(order.spec)


def main(order_path: str, result_path: str) -> int:
    """Run one date's nightly and write its result; return 1 if it failed."""
    order = BackfillOrder.model_validate_json(Path(order_path).read_bytes())
    settings = Settings().resolved()
    try:
        night = run_night(order, settings)
    except TicklineError as error:
        night = BackfillNight(date=str(order.spec.test_date), failure=error.what.splitlines()[0])
    except Exception as error:
        night = BackfillNight(
            date=str(order.spec.test_date), failure=f"{type(error).__name__}: {error}"[:300]
        )
    with atomic_file(Path(result_path)) as temporary:
        temporary.write_text(night.model_dump_json())
    return 1 if night.failure else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
