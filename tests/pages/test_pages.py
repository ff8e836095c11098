"""What each page shows before anybody scrolls, in both sizes, and the walks of docs/walks.md.

One file, so that one process makes the desk.
"""

import os
import re

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from infra.ui import mlflow_link
from model_code.settings import MODEL_NAME
from tasks.promotion.show_evidence import PAGE
from tests.pages.conftest import Open
from tests.pages.desk import BAD, FIRST, SECOND, SYMBOLS, Desk
from tests.pages.walk import Step, section, steps, take
from tests.support.cli import plain
from tests.support.commands import module
from tests.support.pages import SIZES, Screen, dead

DECIDE = "Say yes or no to a version"
RANDOM_SUFFIX = re.compile(r"-[0-9a-f]{3}\b")


def test_prefects_list_names_the_runs(desk: Desk, show: Open) -> None:
    screen = show(f"{desk.prefect}/runs")
    screen.shows(f"nightly {BAD}", "Failed")
    screen.scroll_to("promote v2")
    screen.shows("promote v2", "Suspended")


def test_a_nights_run_says_what_each_stage_found(desk: Desk, show: Open) -> None:
    screen = show(f"{desk.prefect}/runs/flow-run/{desk.night.id}")
    screen.shows(f"nightly {SECOND}", "Completed", f"test {SECOND}")
    screen.picture("prefect")


def test_a_failed_run_says_what_to_do_before_any_traceback(desk: Desk, show: Open) -> None:
    screen = show(f"{desk.prefect}/runs/flow-run/{desk.failed.id}")
    screen.choose("Oldest to newest", "Newest to oldest")
    screen.shows(f"DataError: {SYMBOLS[0]} {BAD} failed validation", "crossed_quote", "where:")
    screen.picture("prefect-failed")
    whole = screen.page.locator("body").inner_text()
    order = [whole.index(part) for part in ("where:", "do:", "continue with:", "Traceback")]
    assert order == sorted(order)


def test_task_runs_have_plain_names(desk: Desk, show: Open) -> None:
    screen = show(f"{desk.prefect}/runs/flow-run/{desk.failed.id}")
    screen.page.get_by_text("Task Runs", exact=True).click()
    screen.scroll_to(f"validate {SYMBOLS[0]} {BAD}")
    assert RANDOM_SUFFIX.findall(screen.text()) == []


def test_the_form_has_the_figures_and_the_reviewers(desk: Desk, show: Open) -> None:
    screen = show(f"{desk.prefect}/runs/flow-run/{desk.waiting.id}")
    screen.page.get_by_role("button", name="Resume").click()
    screen.shows("version 2", str(SECOND), "pass", "AUC", "champion", "gradient boosting")
    screen.shows("base rate", "p99", "drifted", "Evidence", "Verdict", "Reviewer", "Reason")
    assert "Optional" not in screen.text()
    assert dead(screen.links()) == []
    screen.picture("approve")


def test_prefects_artifacts_are_tables_of_the_night(desk: Desk, show: Open) -> None:
    for key, text in (("validation", SYMBOLS[0]), ("verdict", "pass"), ("benchmark", "p50")):
        screen = show(f"{desk.prefect}/artifacts/artifact/{desk.artifacts[key]}")
        screen.shows(key, text)


def test_mlflows_list_has_a_row_a_night(desk: Desk, show: Open) -> None:
    screen = show(desk.runs_page)
    screen.shows(*(f"nightly {date}" for date in (FIRST, SECOND, BAD)))
    screen.click("Close")  # MLflow's assistant, open on a first visit
    columns = ["test_date", "tickline.verdict", "quality/auc", "baseline/auc"]
    columns += ["latency/p50_ms", "latency/p99_ms"]
    if screen.width == SIZES[0][0]:
        columns.append("tickline.engine")
    screen.shows(*columns, "pass", str(SECOND))
    assert "engine champion" not in screen.text(), "its engines are folded below the night"
    screen.picture("mlflow")


def test_a_nights_page_begins_with_its_result(desk: Desk, show: Open) -> None:
    screen = show(desk.run_page(desk.nights[-1]))
    screen.shows(f"nightly {SECOND}", "tickline nightly", "promote v2")
    note = desk.nights[-1].data.tags[MLFLOW_RUN_NOTE]
    assert len(note) < 1000
    first = note.splitlines()[0].replace("**", "")
    assert re.fullmatch(
        rf"pass: \S+, test day {SECOND}: AUC 0\.\d+, gradient boosting 0\.\d+, p99 [\d.]+ ms", first
    )
    screen.scroll_to(first)


def test_the_registered_version_names_its_night(desk: Desk, show: Open) -> None:
    screen = show(mlflow_link(desk.mlflow, f"models/{MODEL_NAME}/versions/2"))
    screen.shows("Version 2", "challenger")
    screen.picture("registry")


def test_the_evidence_opens_in_mlflow(desk: Desk, show: Open) -> None:
    screen = show(desk.run_page(desk.promotion, f"/artifacts/{PAGE}"))
    screen.shows("Promote version 2?", str(SECOND), "pass", "AUC")
    assert dead(screen.links()) == []


def test_the_evidence_page(desk: Desk, show: Open) -> None:
    screen = own(show, desk, "evidence")
    screen.shows("Promote version 2?", str(SECOND), "pass", "AUC", "champion", "gradient boosting")
    screen.shows("p99", "Drifted features", "Rows quarantined")
    screen.picture("evidence")


def test_the_dashboard(desk: Desk, show: Open) -> None:
    screen = own(show, desk, "nights")
    screen.shows("Serves", "version 1", "since", "Next night", "none scheduled", str(BAD))
    screen.picture("nights")


def test_the_benchmarks_report(desk: Desk, show: Open) -> None:
    screen = own(show, desk, "benchmark")
    screen.shows("Chosen engine:", "Verdict", "pass", "torch-fp32 at batch 1", "AUC")
    screen.shows("Why the faster engines were not chosen")


def test_the_validation_report(desk: Desk, show: Open) -> None:
    screen = own(show, desk, "validation")
    screen.shows("all 10 instrument-days passed", f"Test day {SECOND}")
    screen.shows("Odd against other days", "the rows of its median day")


def test_the_live_page(desk: Desk, show: Open) -> None:
    screen = show(desk.live)
    screen.shows("AAA.test")
    assert screen.cut_off() == []


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


def own(show: Open, desk: Desk, name: str) -> Screen:
    """Open one of Tickline's own pages: nothing is cut off, every link answers."""
    screen = show(desk.files[name])
    assert screen.cut_off() == []
    assert dead(screen.links()) == []
    return screen
