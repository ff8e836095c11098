"""The desk whose pages are looked at, and a window of each size."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from playwright.sync_api import Browser

from tests.pages.desk import Desk, open_desk
from tests.support.pages import SIZES, Screen, browser, chromium

Open = Callable[[str | Path], Screen]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them: they start servers, and take minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("servers")
            item.add_marker("slow")


@pytest.fixture(scope="session")
def desk() -> Iterator[Desk]:
    """Two nights, a promotion that waits, a failed night; made once."""
    chromium()  # first: without it nothing else is needed
    # a short path, because pages and their pictures show it
    with TemporaryDirectory(prefix="tickline-") as folder, open_desk(Path(folder)) as opened:
        yield opened


@pytest.fixture(scope="module")
def chrome(desk: Desk) -> Iterator[Browser]:
    """A browser; Playwright holds this thread's event loop, so it closes with the module."""
    with browser() as opened:
        yield opened


@pytest.fixture(params=SIZES, ids=lambda size: "{}x{}".format(*size))
def show(chrome: Browser, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open a page in a window of each size; no page may log an error or load from elsewhere."""
    with window(chrome, request.param) as opened:
        yield opened


@pytest.fixture
def show_once(chrome: Browser) -> Iterator[Open]:
    """The same in the smaller window alone, for what can be done only once."""
    with window(chrome, SIZES[-1]) as opened:
        yield opened


@contextmanager
def window(chrome: Browser, size: tuple[int, int]) -> Iterator[Open]:
    """A window for the length of the block; afterwards its pages must have been in order."""
    with chrome.new_context(viewport={"width": size[0], "height": size[1]}) as context:
        screen = Screen(context.new_page())

        def opened(address: str | Path) -> Screen:
            screen.open(address)
            return screen

        yield opened
        assert screen.errors == []
        assert screen.abroad == []
        assert not screen.scrolls_sideways()
