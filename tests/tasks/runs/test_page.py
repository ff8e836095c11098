"""What the log of a run shows in Prefect's page."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import Log
from prefect.client.schemas.sorting import LogSort

from flows.runs.explain import explain
from model_code.errors import ServingError
from model_code.settings import (
    NightlySpec,
    Settings,
    SplitSpec,
    TrainingSpec,
    ValidationSpec,
)
from tasks.runs import mlflow_runs
from tasks.runs.faults import continue_with
from tasks.runs.page import FLOWS, TASKS, _shortened
from tests.support.cli import RUN
from tests.support.flow import EASY, QUICK_BENCHMARK, SIMULATED, parents, stage_states, tiny

ROOT = Path(__file__).resolve().parents[3]
LONG = 500


def night(folder: Path, **changes: object) -> Path:
    """A specification of a night of one engine and one epoch."""
    goals, path = folder / "goals.yaml", folder / "night.json"
    goals.write_text(EASY)
    values = {
        "goals": str(goals),
        "split": SplitSpec(train_windows=128, validation_windows=128, test_windows=128),
        "training": TrainingSpec(epochs=1, batch_size=32),
        "benchmark": QUICK_BENCHMARK.model_copy(
            update={"engines": ("onnxruntime-fp32", "tensorrt-fp16")}
        ),
    }
    spec: NightlySpec = tiny(SIMULATED, **(values | changes))
    path.write_text(spec.model_dump_json())
    return path


def ran(settings: Settings, spec: Path) -> tuple[str, str, list[Log]]:
    """Run a nightly as a user does; what it printed, the id of its flow run and its log."""
    environment = dict(os.environ)
    environment.pop("PREFECT_LOGGING_TO_API_ENABLED", None)
    done = subprocess.run(
        [sys.executable, "-c", RUN, "nightly", "--spec", str(spec)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONG,
        check=False,
    )
    run_id = str(parents(settings)[-1].data.tags[mlflow_runs.FLOW_RUN_TAG])
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run_id)]))
    with get_client(sync_client=True) as client:
        return done.stdout, run_id, client.read_logs(of_run, sort=LogSort.TIMESTAMP_ASC)


def facts(log: list[Log], stage: str) -> tuple[str, str]:
    """The facts of a stage and how it ended, from its only line."""
    (line,) = [one.message for one in log if one.message.startswith((f"{stage}: ", f"{stage} ("))]
    found, _, ended = line.removeprefix(stage).removeprefix(": ").rpartition(" (")
    return found, ended.partition(",")[0]


@pytest.mark.slow
def test_each_stage_has_one_line_with_its_facts_computed_or_cached(
    home: Settings, tmp_path: Path
) -> None:
    spec = night(tmp_path)
    printed, first_id, first = ran(home, spec)
    _, second_id, second = ran(home, spec)
    assert first_id != second_id

    stages = stage_states(first_id)
    assert len(stages) > 15
    wanted = {
        "validate SIMA.sim 2000-01-04": "15,156 rows, 0 quarantined",
        "split": "train 128 windows",
        "train": "validation AUC by epoch 0.",
        "build onnxruntime-fp32": "built",
        "build tensorrt-fp16": "not built: ",
        "benchmark": "fastest ",
        "gate": "no baseline: ",
        "register": "version 1, alias challenger-simulated",
        "find champion": "no version serves yet",
    }
    for name in stages:
        found, ended = facts(first, name)
        assert ended == "completed"
        assert wanted.get(name, "") in found
        again, ended = facts(second, name)
        assert again == found
        assert ended == ("completed" if name in {"find days", "find champion"} else "cached")
    assert wanted.keys() <= stages.keys()
    for log in (first, second):
        # beside the stages: the start, the outcome, and two links
        assert len(log) == len(stages) + 4
        assert {one.level for one in log} == {logging.INFO}
        assert log[-3].message.startswith("no baseline: onnxruntime-fp32 p50 ")
        assert log[-2].message.startswith("MLflow run: http")
        assert log[-1].message.startswith("reports: http")

    # the terminal has its own lines, and none of Prefect's
    assert "Completed build onnxruntime-fp32" in printed
    assert "build onnxruntime-fp32: built" not in printed
    assert [run.info.run_name for run in parents(home)] == ["nightly 2000-01-04"] * 2


@pytest.mark.slow
def test_a_failure_is_one_entry_in_the_words_of_tickline_why(
    home: Settings, tmp_path: Path
) -> None:
    strict = ValidationSpec(minimum_rows=10**6)
    printed, run_id, log = ran(home, night(tmp_path, validation=strict))
    assert printed.count("tickline failed") == 1
    assert "Traceback" not in printed
    (failed,) = [one.message for one in log if one.level > logging.INFO]
    assert failed == log[-1].message
    words, _, trace = failed.partition("\nTraceback")
    assert "require_passed" in trace
    found = explain(home, run_id)
    assert words.splitlines() == [
        found.cause,
        f"where: {found.where}",
        "kind: data: bad input data: contact the data provider now",
        f"do: {found.remedy}",
        continue_with(found.command),
    ]
    assert found.cause.startswith("DataError: SIMA.sim 2000-01-03 failed validation: minimum_rows")
    shown, ended = facts(log, "validate SIMA.sim 2000-01-03")
    assert shown.startswith("failed: minimum_rows: ")
    assert ended == "completed"


def kept(name: str, text: str, *arguments: object) -> str | None:
    """What becomes of a line of Prefect's engine; None if it is dropped."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger, handler = logging.getLogger(name), Keep()
    logger.addHandler(handler)
    try:
        logger.error(text, *arguments)
    finally:
        logger.removeHandler(handler)
    return found[0] if found else None


def test_the_noise_of_prefects_engine_is_dropped_and_an_attempt_is_one_line() -> None:
    for noise in ("Running hook 'a'", "Hook 'a' finished", "Finished in state Completed()"):
        assert kept(FLOWS, noise) is None
        assert kept(TASKS, noise) is None
    assert kept(TASKS, "a warning of a stage") == "a warning of a stage"
    assert kept(TASKS, "Task run failed with exception: ValueError('no')") is None
    error = ServingError("Triton does not answer", remedy="tickline triton up")
    text = "Task run failed with %s: %r - Retry %s/%s will start %s"
    assert kept(TASKS, text, "exception", error, 1, 3, "2.0 second(s) from now") == (
        "ServingError: Triton does not answer. Retry 1 of 3 will start 2.0 second(s) from now"
    )


def test_the_terminal_shows_as_many_facts_as_there_is_room_for() -> None:
    found = "AUC 0.7; best epoch 2; 28 windows/s"
    assert _shortened(found, 80) == found
    assert _shortened(found, 22) == "AUC 0.7; best epoch 2"
    assert _shortened(found, 7) == "AUC 0.7"
    assert _shortened(found, 6) == ""
    assert _shortened(found, -3) == ""
