"""A new day costs a new day: a later night finds the features of earlier days."""

import datetime as dt
import shutil
from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.runtime import flow_run

from flows import candidate
from model_code.artifacts import ArtifactStore
from model_code.features.dataset import read_manifest
from model_code.settings import FeatureSpec, NightlySpec, Settings
from tasks.caching.stage import RunRef
from tasks.nightly.find_days import find_days
from tasks.nightly.records import Prepared
from tasks.runs.task_runs import settled_task_runs
from tests.support.flow import tiny

MARKET = "simulated:?seed=11&instruments=2&days=4&minutes=2"
SYMBOLS = ("SIMA.sim", "SIMB.sim")
DATES = tuple(dt.date(2000, 1, day) for day in (3, 4, 5, 6))
LEADERS = {SYMBOLS[1]: (SYMBOLS[0],)}


@pytest.fixture(autouse=True)
def _nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "publish_validation", lambda *_: None)


def prepared(
    settings: Settings, test_date: dt.date, **features: object
) -> tuple[Prepared, dict[str, str]]:
    """Table and final states by task run of a flow that prepares a night."""
    wanted = FeatureSpec.model_validate({"leaders": LEADERS} | features)
    spec: NightlySpec = tiny(MARKET, test_date=str(test_date), features=wanted)
    run = RunRef(settings=settings, mlflow_run_id="none", flow_run_id="none")

    @flow(name="prepare", persist_result=False)
    def prepare() -> tuple[Prepared, str]:
        plan = find_days(spec)
        return candidate.prepare(run, spec, plan, plan.test_date), str(flow_run.id)

    made, run_id = prepare()
    with get_client(sync_client=True) as client:
        stages = settled_task_runs(client, UUID(run_id))
    return made, {
        stage.name: str(stage.state.name)
        for stage in stages
        if stage.state and stage.name.startswith("feature")
    }


def test_a_later_night_computes_its_new_day_alone(home: Settings) -> None:
    store = ArtifactStore(home.artifacts)
    first, states = prepared(home, DATES[2])
    days = {date: {f"features {name} {date}" for name in SYMBOLS} for date in DATES}
    before = days[DATES[0]] | days[DATES[1]] | days[DATES[2]]
    assert {stage for stage in states if stage.startswith("features ")} == before
    assert set(states.values()) == {"Completed"}

    second, states = prepared(home, DATES[3])
    cached = {stage for stage, state in states.items() if state == "Cached"}
    assert cached == before
    assert {stage for stage in states if stage.startswith("features ")} - cached == days[DATES[3]]
    earlier, later = (read_manifest(store, made.table) for made in (first, second))
    assert later.shards[: len(before)] == earlier.shards

    # what is gone is computed again, and the table is the same
    shutil.rmtree(store.path(later.shards[2].folder))
    again, states = prepared(home, DATES[3])
    assert again.table == second.table
    fresh = {stage for stage, state in states.items() if state != "Cached"}
    assert fresh == {f"features {later.shards[2].meta.symbol} {later.shards[2].meta.date}"}


def test_another_leader_computes_its_followers_alone(home: Settings) -> None:
    prepared(home, DATES[1])
    _, states = prepared(home, DATES[1], leaders={})
    fresh = {stage for stage, state in states.items() if state != "Cached"}
    assert {stage for stage in fresh if stage.startswith("features ")} == {
        f"features {SYMBOLS[1]} {date}" for date in DATES[:2]
    }
