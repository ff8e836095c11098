"""What `tickline why` prints for each way a run can end."""

from collections.abc import Callable
from io import StringIO

import pytest
from prefect import flow, get_client, task
from prefect.states import Cancelled, Cancelling, Crashed
from rich.console import Console

from flows.runs import rerun
from flows.runs.explain import Explanation, explain, render
from flows.runs.find import NIGHTLY, find_run, last_failed
from model_code.errors import ConfigError, DataError, MarketChoiceError, MarketError
from model_code.repository.audit import account
from model_code.settings import NightlySpec, Settings
from tasks.monitoring.history import read_history
from tasks.runs import mlflow_runs
from tasks.runs.faults import CANCELLED, Fault
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
    assert found.command in text(found)
    assert type(error()).__name__ in found.cause
    assert getattr(error(), "remedy", "") == found.remedy
    shown = text(found)
    for piece in (kind, found.cause, found.command, "first (Completed)"):
        assert piece in shown
    assert bool(found.mlflow_run_id) == track
    assert found.who == f"started by {account() if track else 'hand'}"


@pytest.mark.parametrize("track", [True, False])
def test_a_rerun_is_not_advised_where_it_must_fail_again(home: Settings, track: bool) -> None:
    error = MarketChoiceError("instruments not in the store: XYZ", remedy="choose among ABC")
    found = explain(home, failed(home, error, track=track))
    assert found.command == "tickline nightly, corrected: a rerun asks for the same again"
    assert found.remedy == "choose among ABC"
    assert "tickline rerun" not in text(found)


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


def test_a_cancelled_night_is_a_persons_act_and_is_passed_over_unless_named(
    home: Settings,
) -> None:
    with get_client(sync_client=True) as client:
        broken = failed(home, RuntimeError("x"), track=True)
        stopped = failed(home, RuntimeError("x"), track=True)
        run = find_run(stopped)
        client.set_flow_run_state(run.id, Cancelled(message="by somebody"), force=True)
    found = explain(home, None)
    assert (found.run, found.kind, found.cause) == (stopped, "person", "a person cancelled the run")
    assert found.command == f"tickline rerun {stopped}"
    assert "developers" not in text(found)
    assert "morning" not in text(found)
    assert last_failed((NIGHTLY,)).name == broken
    assert explain(home, None, of_any_flow=True).run == broken


def test_when_only_a_cancelled_night_is_left_the_message_names_it(home: Settings) -> None:
    name = failed(home, RuntimeError("x"), track=False)
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs():
            if run.name != name:
                client.delete_flow_run(run.id)
        client.set_flow_run_state(find_run(name).id, Cancelled(), force=True)
    with pytest.raises(ConfigError, match=f"{name}, was cancelled") as caught:
        rerun.rerun(home, None, say=lambda _: None)
    assert caught.value.remedy.endswith(f"tickline rerun {name}")


def test_a_run_that_the_one_before_crowded_out_was_nobodys_act(home: Settings) -> None:
    name = failed(home, RuntimeError("x"), track=False)
    message = "Deployment concurrency limit reached."
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(find_run(name).id, Cancelled(message=message), force=True)
    found = explain(home, name)
    assert (found.kind, found.command) == (None, None)
    assert "the run before it was still active" in found.cause


def test_ctrl_c_is_a_persons_act(home: Settings) -> None:
    @flow(name="nightly", flow_run_name="interrupted")
    def nightly() -> None:
        with tracked(home, NightlySpec(), simulated=True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nightly()
    found = explain(home, "interrupted")
    assert (found.state, found.kind) == ("Crashed", "person")
    assert "Ctrl-C" in found.cause
    assert read_history(home).nights[0].status == "CANCELLED"


def test_a_night_stopped_while_it_is_being_cancelled_stores_that(home: Settings) -> None:
    @flow(name="nightly", flow_run_name="stopped")
    def nightly() -> None:
        with tracked(home, NightlySpec(), simulated=True):
            with get_client(sync_client=True) as client:
                run = find_run("stopped")
                client.set_flow_run_state(run.id, Cancelling(), force=True)
            raise SystemExit(143)  # Prefect's own signal would end the tests too

    with pytest.raises(SystemExit):
        nightly()
    (run,) = mlflow_runs.client(home).search_runs(
        [mlflow_runs.experiment_id(mlflow_runs.client(home), home)]
    )
    assert Fault.model_validate_json(run.data.tags[mlflow_runs.FAULT_TAG]) == CANCELLED
    assert run.data.tags[mlflow_runs.ERROR_TAG] == CANCELLED.what
    assert run.info.status == "KILLED"
    assert read_history(home).nights[0].status == "CANCELLED"


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
