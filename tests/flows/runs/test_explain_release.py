"""What `tickline why` says of promotions, rollbacks and backfills, and what they log."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled

from flows import promote
from flows.backfill import backfill
from flows.runs import promotions, rerun
from flows.runs.explain import Explanation, explain
from flows.runs.find import find_run
from infra.redact import HIDDEN
from model_code.errors import ConfigError, DataError, PromotionError, ServingError
from model_code.settings import Settings, ValidationSpec
from tests.support.desk import approve, start
from tests.support.flow import QUICK_BENCHMARK, tiny

SECRET = "a-secret-of-this-test"  # noqa: S105
MARKET = "simulated:?seed=3&instruments=1&days=3&minutes=2"


def logged(settings: Settings, run: str) -> list[dict[str, Any]]:
    """What the structured log holds of a run."""
    lines = [
        json.loads(line)
        for path in sorted((settings.home / "logs").glob("tickline-*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [line for line in lines if line["flow_run_name"] == run]


def messages(lines: list[dict[str, Any]]) -> list[str]:
    return [line["message"] for line in lines if line["logger"] == "tickline"]


def stages(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    found = [line for line in lines if line["message"] == "stage ended"]
    return [(line["stage"], line["state"]) for line in found]


def test_a_promotion_that_waits_fails_resumes_and_is_cancelled(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_PASSWORD", SECRET)
    run = start(desk, 1)
    waits = explain(desk, run.name)
    assert (waits.flow, waits.kind, waits.command) == ("promote", None, None)
    assert waits.cause == "it waits for a decision"
    assert "tickline approve 1" in waits.remedy
    assert waits.who == "started by bob"
    assert {"open promotion", "show evidence"} <= {name for name, _ in waits.done}
    assert messages(logged(desk, run.name))[-1] == "run suspended"

    def away(*_: object) -> None:
        raise ServingError(f"Triton does not answer {SECRET}", remedy="tickline triton up")

    with monkeypatch.context() as patched:
        patched.setattr(promote, "infra_validation", away)
        with pytest.raises(ServingError):
            approve(desk, 1)
    found = explain(desk, None, of_any_flow=True)
    assert (found.run, found.kind) == (run.name, "service")
    assert found.cause.startswith("ServingError: Triton does not answer")
    assert found.remedy == "tickline triton up"
    assert found.who == "started by bob, approved by ada"
    assert found.command == "tickline promote --version 1"
    assert found.mlflow_run_id
    with pytest.raises(ConfigError, match="which rerun does not resume") as caught:
        rerun.rerun(desk, run.name, say=lambda _: None)
    assert caught.value.remedy == found.command

    lines = logged(desk, run.name)
    stopped = next(line for line in lines if line["message"] == "run stopped")
    assert (stopped["cause"], stopped["kind"], stopped["level"]) == (
        "service",
        "ServingError",
        "ERROR",
    )
    assert HIDDEN in stopped["what"]
    assert SECRET not in json.dumps(lines)
    assert ("decide", "Completed") in stages(lines)
    assert {line["flow_run_id"] for line in lines} == {str(run.id)}
    assert stopped["mlflow_run_id"] == found.mlflow_run_id

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelled(message="by somebody"), force=True)
    assert explain(desk, run.name).kind == "person"


def test_a_rejected_promotion_and_a_rollback_that_is_refused(desk: Settings) -> None:
    run = start(desk, 1)
    promotions.decide(desk, "1", "reject", "ada", "not today")
    found = explain(desk, run.name)
    assert (found.state, found.command) == ("Completed", None)
    assert found.cause == "version 1 was rejected by ada: not today"
    assert messages(logged(desk, run.name))[-1] == "run completed"

    with pytest.raises(PromotionError, match="no version serves yet"):
        promotions.roll_back(desk, None, "bob", "try")
    found = explain(desk, None, of_any_flow=True)
    assert (found.flow, found.stage, found.kind) == ("rollback", "choose version", "code")
    assert (found.who, found.command) == ("started by bob: try", "tickline rollback")
    assert "no version serves yet" in found.cause
    lines = logged(desk, found.run)
    assert messages(lines) == ["run started", "stage ended", "run stopped"]
    assert lines[0]["flow"] == "rollback"


def newest(settings: Settings, name: str) -> Explanation:
    run: FlowRun = find_run(name)
    return explain(settings, str(run.id))


def test_a_backfill_is_explained_by_its_dates(
    home: Settings, tmp_path: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    goals = tmp_path / "goals.yaml"
    goals.write_text("goals: [{name: finite, metric: non_finite, kind: threshold, maximum: 0}]\n")
    quick = QUICK_BENCHMARK.model_copy(update={"engines": ("onnxruntime-fp32",)})
    strict = ValidationSpec(minimum_rows=10**6)
    spec = tiny(MARKET, goals=str(goals), benchmark=quick, validation=strict)
    first = dt.date(2000, 1, 4)
    with pytest.raises(DataError, match="minimum_rows"):
        backfill(spec, first, first + dt.timedelta(days=1))
    found = explain(home, None, of_any_flow=True)
    assert (found.flow, found.kind) == ("backfill", "data")
    assert found.stage is not None
    assert found.stage.endswith(f", of {first}")
    assert "minimum_rows" in found.cause
    assert "1 more dates failed" in found.cause
    assert found.command is not None
    # by its id if another test's backfill of these dates has the same name
    resumed = find_run(found.command.removeprefix("tickline rerun "), ("backfill",))
    assert resumed.id == find_run(found.run, ("backfill",)).id
    assert newest(home, found.run) == found
    assert messages(logged(home, found.run))[-1] == "run stopped"
    night = explain(home, str(first))
    assert (night.flow, night.command) == ("backfill night", found.command)
