"""The undisturbed run to compare with, a home to disturb, and the table of what happened."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.harness import Home, Row, markdown

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
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Home:
    """A home in which one nightly ran to its end."""
    home = Home.make(tmp_path_factory.mktemp("undisturbed"), prefect_url)
    home.nightly().succeed()
    return home


@pytest.fixture
def disturbed(tmp_path: Path, prefect_url: str, undisturbed: Home) -> Iterator[Home]:
    """An empty home; whatever ran in it must leave what the undisturbed run left."""
    home = Home.make(tmp_path, prefect_url)
    yield home
    home.kill_leftovers()


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
