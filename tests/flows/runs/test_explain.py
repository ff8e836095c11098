"""What `tickline why` prints for each way a run can end."""

from collections.abc import Callable
from io import StringIO

import pytest
from prefect import flow, get_client, task
from prefect.states import Crashed
from rich.console import Console

from flows.runs import rerun
from flows.runs.explain import Explanation, explain, render
from flows.runs.find import find_run
from model_code.errors import ConfigError, DataError, MarketError
from model_code.settings import NightlySpec, Settings
from tasks.runs import mlflow_runs
from tasks.runs.lifecycle import tracked


def failed(home: Settings, error: Exception, *, track: bool) -> str:
    """Run a nightly that fails with the error after one finished stage; return its name."""

    @task(name="first")
    def first() -> int:
        return 1

    @task(name="second")
    def second() -> None:
        raise error

    names = []

    @flow(name="nightly")
    def nightly() -> None:
        from prefect.runtime import flow_run

        names.append(str(flow_run.name))
        if not track:
            first()
            second()
            return
        with tracked(home, NightlySpec(), simulated=True):
            first()
            second()

    with pytest.raises(type(error)):
        nightly()
    return names[0]


def text(found: Explanation) -> str:
    console = Console(file=StringIO(), width=160, record=True)
    console.print(render(found))
    return console.export_text()


@pytest.mark.parametrize(
    ("error", "track", "kind"),
    [
        (lambda: DataError("two days are bad", remedy="fetch them again"), True, "data"),
        (lambda: MarketError("no such store", remedy="look at --data"), False, "data"),
        (lambda: ZeroDivisionError("oh"), True, "code"),
        (lambda: ConnectionRefusedError("nobody there"), False, "service"),
    ],
)
def test_stage_cause_kind_and_command(
    home: Settings, error: Callable[[], Exception], track: bool, kind: str
) -> None:
    name = failed(home, error(), track=track)
    found = explain(home, name)
    assert found.kind == kind
    assert found.stage == "second"
    assert found.done == (("first", "Completed"),)
    assert found.command == f"tickline rerun {name}"
    assert type(error()).__name__ in found.cause
    assert getattr(error(), "remedy", "") == found.remedy
    shown = text(found)
    for piece in (kind, found.cause, found.command, "first (Completed)"):
        assert piece in shown
    assert bool(found.mlflow_run_id) == track


def test_a_crash_is_a_machine_fault_and_a_completed_run_needs_nothing(home: Settings) -> None:
    name = failed(home, RuntimeError("x"), track=False)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(find_run(name).id, Crashed(message="gone"), force=True)
    found = explain(home, name)
    assert found.kind == "machine"
    assert "exited without an error message" in found.cause
    message = "Failed to submit flow run to infrastructure: OSError: no more processes"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(find_run(name).id, Crashed(message=message), force=True)
    found = explain(home, name)
    assert found.kind == "machine"
    assert "no more processes" in found.cause
    assert "logs worker" in found.remedy

    @flow(name="nightly", flow_run_name="a-good-night")
    def nightly() -> None: ...

    nightly()
    found = explain(home, "a-good-night")
    assert found.command is None
    assert "nothing to rerun" in text(found)


def test_an_unknown_run_is_an_error(home: Settings) -> None:
    with pytest.raises(ConfigError, match="no run named"):
        explain(home, "nobody")


def test_a_successful_rerun_removes_the_error_and_its_cause_from_mlflow(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy: list[bool] = []

    @task(name="second")
    def second() -> None:
        if not healthy:
            raise DataError("bad", remedy="fetch them again")

    @flow(name="nightly", flow_run_name="twice")
    def nightly() -> None:
        with tracked(home, NightlySpec(), simulated=True):
            second()

    mlflow = mlflow_runs.client(home)
    marks = {mlflow_runs.ERROR_TAG, mlflow_runs.FAULT_TAG}
    with pytest.raises(DataError):
        nightly()
    (failed_run,) = mlflow.search_runs([mlflow_runs.experiment_id(mlflow, home)])
    assert failed_run.info.status == "FAILED"
    assert marks <= failed_run.data.tags.keys()
    assert '"cause":"data"' in failed_run.data.tags[mlflow_runs.FAULT_TAG]
    assert explain(home, "twice").command == "tickline rerun twice"

    healthy.append(True)
    monkeypatch.setattr(rerun, "_flow", lambda _name: nightly)
    rerun.rerun(home, "twice", say=lambda _: None)
    (run,) = mlflow.search_runs([mlflow_runs.experiment_id(mlflow, home)])
    assert (run.info.run_id, run.info.status) == (failed_run.info.run_id, "FINISHED")
    assert not marks & run.data.tags.keys()
    found = explain(home, "twice")
    assert (found.state, found.kind, found.command) == ("Completed", None, None)
    assert found.done == (("second", "Completed"),)
    assert "nothing to rerun" in text(found)
