"""A night is computed again on the ticks that an earlier one saw."""

import datetime as dt
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.runtime import flow_run

from flows import candidate
from flows.nightly import nightly
from model_code.artifacts import ArtifactStore
from model_code.errors import ConfigError
from model_code.settings import NightlySpec, Settings
from tasks.caching.stage import RunRef
from tasks.nightly.find_days import find_days
from tasks.nightly.records import SplitWindows
from tasks.nightly.split import split
from tasks.runs.mlflow_runs import FLOW_RUN_TAG
from tasks.runs.task_runs import settled_task_runs
from tasks.validation.as_of import seen_by
from tests.support.flow import EASY, nightly_outcome, parents, stage_states, tiny
from tests.support.market import hive, ticks, write_hive

FIRST, SECOND, LAST = (dt.date(2024, 8, day) for day in (6, 7, 8))
SYMBOL = "BTCUSDT.spot"
COMPUTED = ("validate", "features", "feature table", "split", "train", "export")


def spec_for(folder: Path, uri: str) -> NightlySpec:
    goals = folder / "goals.yaml"
    goals.write_text(EASY)
    return tiny(uri, goals=str(goals))


def of_stage(states: dict[str, str], *names: str) -> dict[str, str]:
    return {name: state for name, state in states.items() if name.startswith(names)}


@pytest.mark.slow
def test_a_night_sees_the_ticks_of_an_earlier_one(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = hive(tmp_path / "market", 3000, 0, (SYMBOL,), (FIRST, SECOND, LAST))
    spec = spec_for(tmp_path, uri)
    before = nightly_outcome(spec)
    write_hive(tmp_path / "market", ticks(3000, 99, SYMBOL, SECOND), SYMBOL, SECOND)  # corrected

    again = nightly(spec, as_of=before.flow_run_name)
    assert isinstance(again, type(before))
    states = stage_states(again.flow_run_name)
    assert set(of_stage(states, "recall")) == {
        f"recall {SYMBOL} {date}" for date in (FIRST, SECOND, LAST)
    }
    later = of_stage(states, *COMPUTED)
    assert len(later) == 7  # features of three days
    assert set(later.values()) == {"Cached"}

    first, second = (seen_by(home, run.data.tags[FLOW_RUN_TAG], spec) for run in parents(home))
    assert second.run != first.run
    assert second.days == first.days
    assert second.plan == first.plan

    monkeypatch.setattr(candidate, "publish_validation", lambda *_: None)
    run = RunRef(settings=home, mlflow_run_id="none", flow_run_id="none")

    @flow(name="plain night", persist_result=False)
    def plain() -> tuple[SplitWindows, str]:
        plan = find_days(spec)
        made = candidate.prepare(run, spec, plan, plan.test_date)
        return split(run, made.table, spec.split, plan.test_date), str(flow_run.id)

    _, run_id = plain()
    with get_client(sync_client=True) as client:
        tasks = settled_task_runs(client, UUID(run_id))
    states = {task.name: str(task.state.name) for task in tasks if task.state}
    fresh = {name for name, state in states.items() if state == "Completed"}
    assert fresh >= {f"validate {SYMBOL} {SECOND}", f"features {SYMBOL} {SECOND}", "split"}
    assert states[f"features {SYMBOL} {FIRST}"] == "Cached"

    with pytest.raises(ConfigError, match=r"train_days is 1, but .* saw its ticks with") as caught:
        nightly(spec.model_copy(update={"train_days": 1}), as_of=before.flow_run_name)
    assert "--as-of" in caught.value.remedy

    # as tickline gc leaves it when the first night is old
    ArtifactStore(home.artifacts).path(first.days[1].clean).unlink()
    with pytest.raises(ConfigError, match=f"{SECOND} that run .* saw are not stored any more"):
        nightly(spec, as_of=before.flow_run_name)


def test_a_run_that_recorded_no_ticks_is_named(home: Settings) -> None:
    with pytest.raises(ConfigError, match="the ticks that 'amber-falcon' saw are not known"):
        seen_by(home, "amber-falcon", NightlySpec())
