"""The benchmark on its own: engines of one network side by side, again whenever asked.

The network is the one a nightly of the same specification trains: what that nightly computed comes
back Cached, only the measurement is made anew.

find days ─ ... ─ train ─ export ─ engines ─ benchmark (fresh) ─ gate ─ tables
"""

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from flows.candidate import build_candidate
from flows.summary import announce
from model_code.benchmark.report import Sheet, heading, markdown
from model_code.benchmark.report import verdicts as verdict_sheet
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun
from model_code.settings import NightlySpec, Settings
from tasks import data, engines, release, tracking
from tasks.results import Judged, Record
from tasks.runs import exclusive, tracked
from tasks.stage import console

EXPERIMENT = "bench"


class Bench(Record):
    """One measurement and the gate's word on it."""

    folder: str
    judged: Judged

    @property
    def run(self) -> BenchmarkRun:
        """The measurement with its raw numbers."""
        return BenchmarkRun.load(Path(self.folder))

    @property
    def result(self) -> BenchmarkResult:
        """The tables' numbers."""
        return self.run.result


def verdicts(judged: Judged) -> Sheet:
    """The gate's word on every engine it judged."""
    return verdict_sheet(
        (name, word, judged.reasons.get(name, "")) for name, word in judged.verdicts.items()
    )


@flow(name="bench", description=__doc__, persist_result=False)
def bench(spec: NightlySpec, repeat: int = 1) -> tuple[Bench, ...]:
    """Measure the engines of one network.

    Args:
        spec: as the nightly's; the store defaults to TICKLINE_MARKET, else the simulated market.
        repeat: measurements to make, one after the other.
    """
    base = Settings().resolved()
    settings = base.model_copy(update={"mlflow_experiment": EXPERIMENT})
    spec = spec.model_copy(update={"market": spec.market or settings.market or data.SIMULATED})
    goals = release.read_goals(spec.goals)
    with exclusive(settings):
        announce("bench", str(flow_run.name), spec)
        plan = data.find_days(spec)
        with tracked(settings, spec, simulated=plan.simulated) as run:
            made = build_candidate(run, spec, plan)
            champion = release.find_champion(run)
            measure = engines.measure_engines.with_options(refresh_cache=True)
            found = []
            for turn in range(repeat):
                if repeat > 1:
                    console.print(f"measurement {turn + 1} of {repeat}")
                measured = measure(
                    run, made.table, made.split, made.engines, champion, spec.benchmark
                )
                judged = engines.judge(run, measured, goals, plan.simulated, spec.benchmark.pin)
                found.append(Bench(folder=measured.folder.path, judged=judged))
            mlflow = tracking.client(settings)
            for turn, done in enumerate(found, 1):
                mlflow.log_artifacts(run.mlflow_run_id, done.folder, f"benchmark-{turn}")
                word = done.judged.verdict_json
                mlflow.log_text(run.mlflow_run_id, word, f"gate-{turn}/verdict.json")
            last = found[-1]
            tables = "\n".join(
                (
                    heading(last.result) + markdown(last.result),
                    verdicts(last.judged).markdown(),
                    last.judged.verdict.markdown(),
                )
            )
            create_markdown_artifact(tables, key="bench", description="Engines side by side.")
            tracking.note(mlflow, run.mlflow_run_id, tables)
    return tuple(found)
