"""The undisturbed nightly to compare with, a home to disturb, and the table of what happened."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.harness import Home, Prepared, Row, markdown

ROWS: list[Row] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark them; without CHAOS=all only the fast ones stay."""
    mine = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in mine:
        item.add_marker("chaos")
        item.add_marker(pytest.mark.timeout(1800))  # many processes, each some seconds to start
    if os.environ.get("CHAOS") == "all":
        return
    left_out = [item for item in mine if item.get_closest_marker("fast") is None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    """Processes for the fast tests, and for the undisturbed nightly."""
    processes = Prepared()
    processes.prepare()
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
    prepared: Prepared,  # first: it imports while the server starts
    prefect_url: str,
    mlflow_template: Path,
) -> Home:
    """A home in which one nightly ran to its end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    home = Home.make(folder, prefect_url, mlflow_template, prepared=prepared)
    nightly = home.nightly()
    prepared.prepare()
    importlib.import_module("flows.nightly")  # for what `Home.invoke` runs
    nightly.succeed()
    return home


@pytest.fixture
def disturbed(tmp_path: Path, prefect_url: str, mlflow_template: Path) -> Iterator[Home]:
    """An empty home; whatever happens in it must leave what the undisturbed nightly left."""
    home = Home.make(tmp_path, prefect_url, mlflow_template)
    yield home
    home.kill_commands()


@pytest.fixture
def table() -> list[Row]:
    """Rows of docs/reliability.md: fault, what happened, seconds to recover."""
    return ROWS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    text = markdown(ROWS)
    terminalreporter.write_line("")
    terminalreporter.write_line(text)
    path = os.environ.get("CHAOS_TABLE")
    if path:
        page = Path(path).read_text()
        begin, end = "<!-- chaos -->\n", "<!-- /chaos -->"
        head, rest = page.split(begin)
        Path(path).write_text(head + begin + text + "\n" + end + rest.split(end)[1])
