"""Links of two homes on one machine lead each to its own stack."""

from pathlib import Path

import pytest

from infra import stack_state
from infra.process import ProcessId
from infra.services import Plan, choose
from infra.stack_state import StackState, mlflow_page, prefect_page
from model_code.settings import Settings


def runs(home: Path, *, prefect: int, mlflow: int, here: bool = True) -> Settings:
    """Settings of a home whose stack runs on these ports, or ran if it is not `here`."""
    settings = Settings(home=home).resolved()
    supervisor = ProcessId.own()
    if not here:
        supervisor = supervisor.model_copy(update={"birth": "earlier"})
    plan = Plan(
        names=("prefect", "worker", "mlflow"),
        ports={"prefect": prefect, "mlflow": mlflow, "worker": 9},
    )
    state = StackState(supervisor=supervisor, plan=plan, services=())
    stack_state.state_path(settings).write_text(state.model_dump_json())
    return settings


def test_two_homes_link_to_their_own_stacks(tmp_path: Path) -> None:
    one = runs(tmp_path / "one", prefect=4200, mlflow=5000)
    two = runs(tmp_path / "two", prefect=14200, mlflow=15000)
    assert (prefect_page(one), mlflow_page(one)) == (
        "http://127.0.0.1:4200",
        "http://127.0.0.1:5000",
    )
    assert (prefect_page(two), mlflow_page(two)) == (
        "http://127.0.0.1:14200",
        "http://127.0.0.1:15000",
    )


def test_a_stack_that_stopped_keeps_its_addresses_and_takes_its_ports_again(
    tmp_path: Path,
) -> None:
    stopped = runs(tmp_path, prefect=1, mlflow=2, here=False)
    assert prefect_page(stopped) == "http://127.0.0.1:4200"  # the state of a dead supervisor
    stack_state.record_ports(stopped, {"prefect": 24200, "mlflow": 25000})
    assert prefect_page(stopped) == "http://127.0.0.1:24200"
    assert mlflow_page(stopped) == "http://127.0.0.1:25000"
    plan = choose(stopped, triton=False, extra=(), last_ports=stack_state.last_ports(stopped))
    assert (plan.ports["prefect"], plan.ports["mlflow"]) == (24200, 25000)
    stack_state.record_ports(stopped, {"prefect": 4200, "of another release": 7})
    assert stack_state.last_ports(stopped) == {"prefect": 4200, "mlflow": 25000}


@pytest.mark.parametrize("broken", ["", "[]", '{"prefect": "x"}'])
def test_a_broken_record_of_ports_counts_as_none(tmp_path: Path, broken: str) -> None:
    settings = Settings(home=tmp_path)
    stack_state.folder(settings).joinpath("ports.json").write_text(broken)
    assert stack_state.last_ports(settings) == {}
    assert prefect_page(settings) == "http://127.0.0.1:4200"


def test_explicit_addresses_and_configured_servers_win(tmp_path: Path) -> None:
    settings = runs(tmp_path, prefect=14200, mlflow=15000)
    elsewhere = settings.resolved(
        prefect_api_url="https://prefect.example/api", mlflow_tracking_uri="https://mlflow.example"
    )
    assert prefect_page(elsewhere) == "https://prefect.example"
    assert mlflow_page(elsewhere) == "https://mlflow.example"
    explicit = elsewhere.resolved(
        prefect_ui_url="https://desk/prefect/", mlflow_ui_url="https://desk/mlflow"
    )
    assert prefect_page(explicit) == "https://desk/prefect"
    assert mlflow_page(explicit) == "https://desk/mlflow"
