"""What each page shows before anybody scrolls, in both window sizes."""

import re

from infra.ui import mlflow_link
from model_code.settings import MODEL_NAME
from tasks.promotion.show_evidence import PAGE
from tests.pages.conftest import Open
from tests.pages.desk import BAD, FIRST, SECOND, SYMBOLS, Desk
from tests.support.pages import Screen, dead

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
    assert dead(screen.links()) == []
    screen.picture("approve")


def test_prefects_artifacts_are_tables_of_the_night(desk: Desk, show: Open) -> None:
    for key, text in (("validation", SYMBOLS[0]), ("verdict", "pass"), ("benchmark", "p50")):
        screen = show(f"{desk.prefect}/artifacts/artifact/{desk.artifacts[key]}")
        screen.shows(key, text)


def test_mlflows_list_has_a_row_a_night(desk: Desk, show: Open) -> None:
    screen = show(desk.runs_page)
    screen.shows(*(f"nightly {date}" for date in (FIRST, SECOND, BAD)))
    screen.shows("test_date", "tickline.verdict", "pass")
    screen.picture("mlflow")


def test_a_nights_page_begins_with_its_result(desk: Desk, show: Open) -> None:
    screen = show(desk.run_page(desk.nights[-1]))
    screen.shows(f"nightly {SECOND}")


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
    screen.shows("Chosen engine:", "Verdict", "pass", "AUC")


def test_the_validation_report(desk: Desk, show: Open) -> None:
    screen = own(show, desk, "validation")
    screen.shows("all 10 instrument-days passed", str(SECOND))


def test_the_live_page(desk: Desk, show: Open) -> None:
    screen = show(desk.live)
    screen.shows("AAA.test")
    assert screen.cut_off() == []


def own(show: Open, desk: Desk, name: str) -> Screen:
    """Open one of Tickline's own pages: nothing is cut off, every link answers."""
    screen = show(desk.files[name])
    assert screen.cut_off() == []
    assert dead(screen.links()) == []
    return screen
