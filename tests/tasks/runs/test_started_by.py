"""Who or what started a run."""

from typing import Any

import pytest
from prefect import flow

from model_code.repository.audit import account
from model_code.settings import Settings
from tasks.runs.started_by import started_by, with_name


class Run:
    """What Prefect says of a run that a worker has started."""

    deployment_id = "d"

    def __init__(self, *, scheduled: bool = False, made: Any = None) -> None:
        self.auto_scheduled, self.created_by = scheduled, made


class Automation:
    type, display_value = "AUTOMATION", "live drift"


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        (Run(scheduled=True), "schedule: nightly"),
        (Run(made=Automation()), "automation: live drift"),
        (Run(), "Prefect: nightly"),
    ],
)
def test_a_workers_run_was_started_by_no_person(
    run: Run, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Context:
        flow_run = run

    current = type("Contexts", (), {"get": lambda: Context})
    monkeypatch.setattr("tasks.runs.started_by.FlowRunContext", current)
    deployed = type("Deployment", (), {"name": "nightly"})
    monkeypatch.setattr("tasks.runs.started_by.deployment", deployed)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "f")
    assert started_by() == wanted
    monkeypatch.delenv("PREFECT__FLOW_RUN_ID")  # resumed in a shell
    assert started_by() == account()


def test_a_run_of_this_process_was_started_by_its_account(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "mallory")

    @flow
    def who() -> str:
        return started_by()

    assert who() == account() != "mallory"


def test_names_are_kept_once() -> None:
    assert with_name("", "ada") == "ada"
    assert with_name("ada", "ada") == "ada"
    assert with_name("schedule: nightly", "ada") == "schedule: nightly, ada"
