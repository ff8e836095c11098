"""The walks of docs/walks.md, step by step as they are written there."""

import os
import re

from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.pages.conftest import Open
from tests.pages.desk import Desk
from tests.pages.walk import Step, section, steps, take
from tests.support.cli import plain
from tests.support.commands import module

DECIDE = "Say yes or no to a version"


def test_a_researcher_compares_two_nights(desk: Desk, show: Open) -> None:
    screen = show(desk.runs_page)
    for step in steps("Compare two nights"):
        take(screen, step)
    screen.scroll_to("baseline/auc")
    screen.shows("Metrics", "baseline/auc")
    screen.picture("walk-compare")


def test_an_engineer_finds_the_cause(desk: Desk, show: Open) -> None:
    screen = show(desk.prefect)
    title = "Find the cause at 3 a.m."
    for step in steps(title):
        take(screen, step)
    (command,) = re.findall(r"^ *tickline (.+)$", section(title), re.MULTILINE)
    said = plain(module("flows.cli", *command.split(), env=os.environ | desk.variables))
    cause = re.search(r"cause (.+?) kind", said)
    assert cause is not None, said
    assert "failed validation" in cause[1]
    screen.shows(cause[1][:60])


def test_a_release_manager_fills_in_the_form(desk: Desk, show: Open) -> None:
    screen = show(desk.prefect)
    *before, last = steps(DECIDE)
    for step in before:
        take(screen, step)
    assert last == Step("click", "Submit")


def test_a_release_manager_decides(desk: Desk, show_once: Open) -> None:
    screen = show_once(desk.prefect)
    for step in steps(DECIDE):
        take(screen, step)
    screen.page.get_by_text("Resume Flow Run").wait_for(state="hidden")
    with (
        temporary_settings({PREFECT_API_URL: f"{desk.prefect}/api"}),
        get_client(sync_client=True) as client,
    ):
        state = client.read_flow_run(desk.waiting.id).state
    assert state is not None
    assert not state.is_paused()
