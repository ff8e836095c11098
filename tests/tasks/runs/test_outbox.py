"""Promotions that a night wants, and that no event started."""

from collections.abc import Iterator
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from prefect import State, get_client
from prefect.states import Failed, Running

from flows.runs.promotions import deployment_id
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, Settings
from tasks.promotion.promotion_runs import runs_of
from tasks.runs.outbox import Due, due, is_opened, mark_opened, start_due
from tasks.runs.version_tags import OPENED, PROMOTION_TAG, WANTED, want_promotion
from tests.support.promotion import registered


def test_the_newest_wanted_version_is_due_and_older_ones_are_closed() -> None:
    assert due({}, None) == Due(None, {})
    assert due({1: WANTED}, None) == Due(1, {})
    assert due({1: OPENED, 2: WANTED}, 1) == Due(2, {})
    assert due({1: WANTED, 2: WANTED}, None) == Due(2, {1: "closed: version 2 passed after it"})
    assert due({1: WANTED, 2: OPENED}, None) == Due(None, {1: "closed: version 2 passed after it"})
    older = "closed: version 3, which is newer, serves"
    assert due({1: WANTED, 2: WANTED}, 3) == Due(None, {1: older, 2: older})
    assert due({3: WANTED}, 3) == Due(None, {3: "it serves"})
    assert due({3: "closed: as before"}, None) == Due(None, {})


@pytest.fixture
def desk(home: Settings) -> Iterator[Settings]:
    """A home with the deployment `promote`, which nobody runs."""
    identity = deployment_id()
    with get_client(sync_client=True) as client:
        for version in (1, 2):
            for run in runs_of(version):
                client.delete_flow_run(run.id)
        yield home
        client.resume_deployment(identity)


def tag(desk: Settings, version: int) -> str:
    found = MlflowClient(desk.tracking_uri).get_model_version(MODEL_NAME, str(version))
    return str(found.tags[PROMOTION_TAG])


def wanted(desk: Settings, version: int) -> None:
    registered(desk, version)
    want_promotion(MlflowClient(desk.tracking_uri), MODEL_NAME, str(version))


def test_a_lost_event_starts_one_promotion_however_often_it_is_looked_for(desk: Settings) -> None:
    assert start_due(desk) == []
    wanted(desk, 1)
    assert not is_opened(desk, 1)
    (said,) = start_due(desk)
    (run,) = runs_of(1)
    assert said == f"version 1: promotion {run.name} started"
    assert run.parameters["version"] == 1
    assert run.parameters["started_by"] == "nightly"
    assert start_due(desk) == [], "it is there"
    assert len(runs_of(1)) == 1
    mark_opened(desk, 1)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Failed(message="a goal broke"), force=True)
    assert start_due(desk) == [], "a promotion that was opened is a person's matter"
    want_promotion(MlflowClient(desk.tracking_uri), MODEL_NAME, "1")
    assert (tag(desk, 1), is_opened(desk, 1)) == (OPENED, True), "a repeated night asks once"


def test_one_that_the_event_started_is_left_alone(desk: Settings) -> None:
    wanted(desk, 1)
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(
            deployment_id(), parameters={"version": 1}, state=Running()
        )
    assert start_due(desk) == []
    assert [found.id for found in runs_of(1)] == [run.id]


def test_one_that_fails_before_it_opens_is_tried_again_and_then_closed(desk: Settings) -> None:
    wanted(desk, 1)
    for attempt in (1, 2, 3):
        (said,) = start_due(desk)
        assert said.endswith("started")
        assert len(runs_of(1)) == attempt
        with get_client(sync_client=True) as client:
            gone: State[Any] = Failed(message="the server does not answer\n  where: x")
            client.set_flow_run_state(runs_of(1)[0].id, gone, force=True)
    (said,) = start_due(desk)
    assert "3 promotions ended before they were opened: the server does not answer" in said
    assert said.endswith("by hand: tickline promote --version 1")
    assert tag(desk, 1).startswith("closed: 3 promotions ended")
    assert start_due(desk) == []
    assert len(runs_of(1)) == 3


def test_a_paused_deployment_stays_paused_and_is_said(desk: Settings) -> None:
    wanted(desk, 1)
    with get_client(sync_client=True) as client:
        client.pause_deployment(deployment_id())
    (said,) = start_due(desk)
    assert "version 1 waits for its promotion: the deployment promote/promote is paused" in said
    assert (runs_of(1), tag(desk, 1)) == ([], WANTED)
    with get_client(sync_client=True) as client:
        assert client.read_deployment(deployment_id()).paused
        client.resume_deployment(deployment_id())
    assert start_due(desk)[0].endswith("started")


def test_nothing_starts_while_something_is_missing(desk: Settings) -> None:
    wanted(desk, 1)
    assert start_due(desk, ["no Triton server is running"]) == [
        "version 1 waits for its promotion: no Triton server is running"
    ]
    away = desk.model_copy(update={"staging": desk.home / "elsewhere"})
    (said,) = start_due(away)
    assert "version 1 waits for its promotion: it is not staged in" in said
    assert runs_of(1) == []


def test_an_older_version_is_closed_with_a_note(desk: Settings) -> None:
    wanted(desk, 1)
    wanted(desk, 2)
    closed, started = start_due(desk)
    assert closed == "version 1: closed: version 2 passed after it"
    assert started.startswith("version 2: promotion")
    assert tag(desk, 1) == "closed: version 2 passed after it"
    serving = ServingRepository(desk.serving_repository)
    serving.turn(Route(champion=Target(model=MODEL_NAME, version=3)))
    assert start_due(desk) == ["version 2: closed: version 3, which is newer, serves"]
