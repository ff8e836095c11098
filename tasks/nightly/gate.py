"""Stage `gate`: judge every servable engine and choose the one to stage."""

from pathlib import Path

from model_code.benchmark.gate import choose, judge_run
from model_code.benchmark.goals import Goals, load_goals
from model_code.benchmark.result import BenchmarkRun
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import Judged, Measured


@stage("gate")
def gate(
    run: RunRef,
    measured: Measured,
    goals: Goals,
    simulated: bool,
    pin: str | None,
) -> Judged:
    """Judge every servable engine; choose the fastest that does not fail."""
    measurement = BenchmarkRun.load(run.store.open(measured.folder))
    verdicts = judge_run(measurement, goals, simulated=simulated, pin=pin)
    choice = choose(measurement, verdicts, pin)
    return Judged(
        engine=choice.engine,
        reason=choice.reason,
        verdict_json=choice.verdict.model_dump_json(),
        verdicts={name: verdict.verdict for name, verdict in verdicts.items()},
        reasons={name: verdict.reason for name, verdict in verdicts.items()},
        missed={name: verdict.missed for name, verdict in verdicts.items() if verdict.missed},
    )


def read_goals(path: str | None) -> Goals:
    """Read the gate's goals from a file; None reads the shipped goals."""
    return load_goals(Path(path) if path else None)
