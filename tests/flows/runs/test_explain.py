"""What `tickline why` says of runs that ended in each way."""

from collections.abc import Callable
from io import StringIO

import pytest
from prefect import flow, get_client, task
from prefect.states import Crashed
from rich.console import Console

from flows.runs.explain import Explanation, explain, render
from flows.runs.find import find_run
from model_code.errors import ConfigError, DataError, MarketError
from model_code.settings import NightlySpec, Settings
from tasks.runs import mlflow_runs
from tasks.runs.lifecycle import tracked


def failed(home: Settings, error: Exception, *, track: bool) -> str:
    """Name of a nightly that failed so, after one finished stage."""

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
    ("error", "track", "whose"),
    [
        (lambda: DataError("two days are bad", remedy="fetch them again"), True, "data"),
        (lambda: MarketError("no such store", remedy="look at --data"), False, "data"),
        (lambda: ZeroDivisionError("oh"), True, "code"),
        (lambda: ConnectionRefusedError("nobody there"), False, "service"),
    ],
)
def test_stage_cause_kind_and_command(
    home: Settings, error: Callable[[], Exception], track: bool, whose: str
) -> None:
    name = failed(home, error(), track=track)
    found = explain(home, name)
    assert found.whose == whose
    assert found.stage == "second"
    assert found.done == (("first", "Completed"),)
    assert found.command == f"tickline rerun {name}"
    assert type(error()).__name__ in found.cause
    assert getattr(error(), "remedy", "") == found.remedy
    shown = text(found)
    for piece in (whose, found.cause, found.command, "first (Completed)"):
        assert piece in shown
    assert bool(found.mlflow_run_id) == track


def test_a_crash_is_the_machine_and_a_completed_run_needs_nothing(home: Settings) -> None:
    name = failed(home, RuntimeError("x"), track=False)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(find_run(name).id, Crashed(message="gone"), force=True)
    found = explain(home, name)
    assert found.whose == "machine"
    assert "died without a word" in found.cause
    message = "Failed to submit flow run to infrastructure: OSError: no more processes"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(find_run(name).id, Crashed(message=message), force=True)
    found = explain(home, name)
    assert found.whose == "machine"
    assert "no more processes" in found.cause
    assert "logs worker" in found.remedy

    @flow(name="nightly", flow_run_name="a-good-night")
    def nightly() -> None: ...

    nightly()
    found = explain(home, "a-good-night")
    assert found.command is None
    assert "nothing to rerun" in text(found)


def test_an_unknown_run_is_said(home: Settings) -> None:
    with pytest.raises(ConfigError, match="no nightly named"):
        explain(home, "nobody")


def test_errors_leave_their_kind_in_mlflow_and_a_good_end_takes_it_away(home: Settings) -> None:
    failed(home, DataError("bad"), track=True)
    mlflow = mlflow_runs.client(home)
    (run,) = mlflow.search_runs([mlflow_runs.experiment_id(mlflow, home)])
    assert run.info.status == "FAILED"
    assert '"cause":"data"' in run.data.tags[mlflow_runs.FAULT_TAG]
