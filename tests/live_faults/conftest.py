"""A rig for each fault, and the table of what happened."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flows.demos.live_rig import Rig, private, rig
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME
from tests.chaos.harness import Row
from tests.live_faults.harness import SYMBOLS
from tests.support.market import DATES, hive
from tests.support.serving import APPROVAL, staged

ROWS: list[Row] = []
MakeRig = Callable[..., Rig]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark them; without CHAOS=live only the fast ones stay."""
    mine = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in mine:
        item.add_marker("chaos")
        item.add_marker(pytest.mark.timeout(300))
    if os.environ.get("CHAOS") == "live":
        return
    left_out = [item for item in mine if item.get_closest_marker("fast") is None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    """Start servers with version 1 of a tiny model; call it with their names."""
    store = hive(tmp_path / "store", n=4000, symbols=SYMBOLS, dates=DATES[:1])
    with ExitStack() as running:

        def make(*names: str) -> Rig:
            settings = private(tmp_path / "home")
            settings.home.mkdir()
            serving = ServingRepository(settings.serving_repository)
            serving.publish(staged(settings.staging_repository, 1), APPROVAL)
            serving.arrange([1])
            Route(champion=Target(model=MODEL_NAME, version=1)).save(serving.route_file)
            return running.enter_context(rig(settings, store, names=names))

        yield make


@pytest.fixture
def table() -> list[Row]:
    """Rows of docs/reliability.md: fault, what happened, seconds to recover."""
    return ROWS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    lines = ["| fault | what happened | seconds to recover |", "|---|---|---|"]
    for fault, happened, seconds in ROWS:
        lines.append(f"| {fault} | {happened} | {'–' if seconds is None else f'{seconds:.2f}'} |")
    text = "\n".join(lines)
    terminalreporter.write_line("")
    terminalreporter.write_line(text)
    path = os.environ.get("CHAOS_TABLE")
    if path and os.environ.get("CHAOS") == "live":
        page = Path(path).read_text()
        begin, end = "<!-- live faults -->\n", "<!-- /live faults -->"
        head, rest = page.split(begin)
        Path(path).write_text(head + begin + text + "\n" + end + rest.split(end)[1])
