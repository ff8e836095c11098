import pytest
from prefect import flow

from model_code.settings import Settings
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import Record


class Doubled(Record):
    value: int


def test_same_inputs_come_back_cached_as_the_same_record(home: Settings) -> None:
    calls: list[int] = []

    @stage("double")
    def double(run: RunRef, number: int) -> Doubled:
        calls.append(number)
        return Doubled(value=2 * number)

    @flow
    def twice(run: RunRef) -> tuple[list[str], Doubled]:
        states = [double(run, 4, return_state=True) for _ in range(2)]
        return [str(state.name) for state in states], states[1].result()

    run = RunRef(settings=home, mlflow_run_id="m", flow_run_id="f")
    names, value = twice(run)
    assert names == ["Completed", "Cached"]
    assert calls == [4]
    assert value == Doubled(value=8)
    stored = [path.read_text() for path in (home.home / "results").rglob("double-*")]
    assert len(stored) == 1
    assert '"type":"json"' in stored[0].replace(" ", "")  # never a pickle


def test_a_stage_that_fails_is_not_cached(home: Settings) -> None:
    calls: list[int] = []

    @stage("fragile")
    def fragile(run: RunRef, number: int) -> int:
        calls.append(number)
        if len(calls) == 1:
            raise ValueError("first time")
        return number

    @flow
    def go(run: RunRef) -> list[str]:
        return [str(fragile(run, 1, return_state=True).name) for _ in range(3)]

    assert go(RunRef(settings=home, mlflow_run_id="m", flow_run_id="f")) == [
        "Failed", "Completed", "Cached",
    ]  # fmt: skip


@pytest.mark.parametrize("left", ["", '{"metadata": {"stor'])
def test_a_truncated_result_is_computed_again(home: Settings, left: str) -> None:
    calls: list[int] = []

    @stage("cut")
    def cut(run: RunRef, number: int) -> int:
        calls.append(number)
        return number

    @flow
    def go(run: RunRef) -> str:
        return str(cut(run, 5, return_state=True).name)

    run = RunRef(settings=home, mlflow_run_id="m", flow_run_id="f")
    assert go(run) == "Completed"
    (record,) = (home.home / "results").glob("cut-*")
    record.write_text(left)
    assert go(run) == "Completed"
    assert calls == [5, 5]
    assert go(run) == "Cached"
