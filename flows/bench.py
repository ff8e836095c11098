"""The benchmark on its own: the engines of one network side by side.

The network is the one that a nightly with the same specification trains. If that nightly has run,
its stages come back Cached and only the measurement is new.

find days ─ ... ─ train ─ export ─ build engine ─ benchmark (measured again) ─ gate
"""

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.candidate import build_candidate, judge_candidate
from flows.runs.outcome import print_start
from model_code.benchmark.reports.latency_sheets import chosen_line
from model_code.benchmark.reports.report import heading, judged_pages, markdown
from model_code.benchmark.reports.report import verdicts as verdict_sheet
from model_code.benchmark.reports.sheet import Sheet
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun
from model_code.settings import NightlySpec, Settings
from tasks.nightly.find_champion import find_champion
from tasks.nightly.find_days import SIMULATED, find_days
from tasks.nightly.gate import read_goals
from tasks.nightly.records import Judged, Record
from tasks.runs import mlflow_runs
from tasks.runs.console import console
from tasks.runs.lifecycle import exclusive, tracked
from tasks.runs.names import rename, start_name

EXPERIMENT = "bench"


class Bench(Record):
    """One measurement and the gate's verdict on it."""

    folder: str
    judged: Judged

    @property
    def run(self) -> BenchmarkRun:
        """The measurement with its raw values."""
        return BenchmarkRun.load(Path(self.folder))

    @property
    def result(self) -> BenchmarkResult:
        """The values shown in tables."""
        return self.run.result


def verdicts(judged: Judged) -> Sheet:
    """Return the table of the gate's verdicts, one row per engine."""
    return verdict_sheet(
        (name, verdict, judged.reasons.get(name, "")) for name, verdict in judged.verdicts.items()
    )


@flow(name="bench", flow_run_name=start_name, description=__doc__, persist_result=False)
def bench(spec: NightlySpec, repeat: int = 1) -> tuple[Bench, ...]:
    """Measure the engines of one network.

    Args:
        spec: as for the nightly; the store defaults to TICKLINE_MARKET, else the simulated market.
        repeat: number of measurements, one after the other.
    """
    base = Settings().resolved()
    settings = base.model_copy(update={"mlflow_experiment": EXPERIMENT})
    spec = spec.model_copy(update={"market": spec.market or settings.market or SIMULATED})
    goals = read_goals(spec.goals)
    found: list[Bench] = []
    with exclusive(settings):
        print_start("bench", spec)
        plan = find_days(spec, settings.home)
        rename(f"bench {plan.test_date}")
        with tracked(settings, spec, simulated=plan.simulated) as run:
            candidate = build_candidate(run, spec, plan)
            champion = find_champion(run, anchor_nights=spec.benchmark.anchor_nights)
            for turn in range(repeat):
                if repeat > 1:
                    console.print(f"measurement {turn + 1} of {repeat}")
                measured, judged = judge_candidate(
                    run, spec, plan, candidate, champion, goals, measure_again=True
                )
                found.append(Bench(folder=str(run.store.path(measured.folder)), judged=judged))
            mlflow = mlflow_runs.client(settings)
            for turn, done in enumerate(found, 1):
                mlflow.log_artifacts(run.mlflow_run_id, done.folder, f"benchmark-{turn}")
                pages = judged_pages(done.run, Path(done.folder), done.judged.selection)
                for name, text in pages.items():
                    mlflow.log_text(run.mlflow_run_id, text, f"benchmark-{turn}/{name}")
                verdict_json, name = done.judged.verdict_json, f"gate-{turn}/verdict.json"
                mlflow.log_text(run.mlflow_run_id, verdict_json, name)
            last = found[-1]
            tables = "\n".join(
                (
                    heading(last.result) + markdown(last.result, last.judged.selection),
                    verdicts(last.judged).markdown(),
                    last.judged.verdict.markdown(),
                )
            )
            create_markdown_artifact(tables, key="bench", description="Engines side by side.")
            mlflow.log_text(run.mlflow_run_id, tables, "bench.md")
            verdict = last.judged.verdict
            mlflow_runs.note(
                mlflow,
                run.mlflow_run_id,
                f"**{verdict.verdict}**: {verdict.reason}\n\n"
                f"{chosen_line(last.result, last.judged.engine)}\n\n"
                "Tables: `bench.md` among the artifacts",
            )
    return tuple(found)
