"""Pages in a headless Chromium: what stands on the first screen, what a page logs and loads.

No request leaves the machine: all others are blocked and noted.
"""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    Frame,
    Locator,
    Page,
    Route,
    sync_playwright,
)

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SIZES = ((1440, 900), (1280, 800))
PATIENCE_S = 30.0  # a busy machine is slow, not wrong
LOCAL = ("127.0.0.1", "localhost")
# console errors of others' pages, and why they are let through
ALLOWED = {
    r"404 .*/ico/(undefined|paused)\.svg": "Prefect has no browser icon for these states",
    r"Cannot read properties of null \(reading 'position'\)": "Prefect's graph of a resumed run",
    r"404 .*/mlflow/users/current": "MLflow asks for the user, and there is no log-in",
}
# words that are wholly on the screen, neither clipped nor covered, in the document's order
WORDS = """(limit) => {
  const clip = (box, by) => ({top: Math.max(box.top, by.top), left: Math.max(box.left, by.left),
    bottom: Math.min(box.bottom, by.bottom), right: Math.min(box.right, by.right)});
  const areas = new Map();
  const area = (element) => {  // the part of the screen in which its children are seen
    if (!element) return limit;
    if (!areas.has(element)) {
      const outer = area(element.parentElement);
      const cuts = getComputedStyle(element).overflow !== "visible"
        && element !== document.body && element !== document.documentElement;
      areas.set(element, cuts ? clip(element.getBoundingClientRect(), outer) : outer);
    }
    return areas.get(element);
  };
  const seen = (box, element) => {
    const inside = area(element);
    if (box.width < 1 || box.height < 1 || box.top < inside.top - 1 || box.left < inside.left - 1
      || box.bottom > inside.bottom + 1 || box.right > inside.right + 1) return false;
    if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true})) return false;
    const top = document.elementFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
    return top !== null && (top.contains(element) || element.contains(top));
  };
  const words = [], range = document.createRange();
  const walker = document.createTreeWalker(document.body,
    NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.nodeType === Node.ELEMENT_NODE) {
      const field = ["INPUT", "TEXTAREA"].includes(node.tagName);
      if (field && seen(node.getBoundingClientRect(), node.parentElement)) words.push(node.value);
      continue;
    }
    for (const word of node.data.matchAll(/\\S+/g)) {
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (seen(range.getBoundingClientRect(), node.parentElement)) words.push(word[0]);
    }
  }
  return words.join(" ");
}"""
# elements that hide a part of their content for which nobody can scroll
CUT = """() => [...document.querySelectorAll("body *")].filter((element) => {
  const hides = ["hidden", "clip"].includes(getComputedStyle(element).overflowX);
  return hides && element.scrollWidth > element.clientWidth + 1 && element.checkVisibility();
}).map((element) => element.innerText.trim().slice(0, 80)).filter((text) => text)"""


def chromium() -> str:
    """Path of Debian's Chromium or of Chrome; a test that needs it is skipped, by name, without."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("chromium is not installed (Debian: chromium)")
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser for the length of the block."""
    path = chromium()
    with sync_playwright() as playwright:
        # no sandbox: it needs rights that a container's root has not
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


class Box(NamedTuple):
    """A part of the screen, in CSS pixels from its top left corner."""

    top: float
    left: float
    bottom: float
    right: float


class Screen:
    """One window.

    Attributes:
        page: Playwright's page.
        errors: what the pages logged as errors, but for `ALLOWED`.
        abroad: addresses on other machines that the pages asked for; they were blocked.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.abroad: list[str] = []
        self._watch(page)
        page.context.on("page", self._watch)
        page.context.route("**/*", self._keep_local)

    def _watch(self, page: Page) -> None:
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self._note(str(error)))

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(f"{message.text} {message.location.get('url', '')}")

    def _note(self, error: str) -> None:
        if not any(re.search(known, error) for known in ALLOWED):
            self.errors.append(error)

    def _keep_local(self, route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in {"http", "https", "ws", "wss"} and address.hostname not in LOCAL:
            self.abroad.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    def open(self, address: str | Path) -> None:
        """Go to a page, an address or a file."""
        self.page.goto(address.as_uri() if isinstance(address, Path) else address)

    @property
    def width(self) -> int:
        """Of the window, in CSS pixels."""
        size = self.page.viewport_size
        assert size is not None
        return size["width"]

    def text(self) -> str:
        """Every word that is seen without scrolling, in frames too."""
        size = self.page.viewport_size
        assert size is not None
        screen = Box(0, 0, size["height"], size["width"])
        frames = [(frame, _seen_of(frame, screen)) for frame in self.page.frames]
        return " ".join(
            str(frame.evaluate(WORDS, part._asdict())) for frame, part in frames if part is not None
        )

    def shows(self, *texts: str) -> None:
        """Wait until each text is seen without scrolling, whatever the spaces in it."""
        deadline = time.monotonic() + PATIENCE_S
        while missing := self._missing(texts):
            late = f"not on the first screen of {self.page.url}: {missing}; it shows: {self.text()}"
            assert time.monotonic() < deadline, late
            self.page.wait_for_timeout(250)

    def _missing(self, texts: Iterable[str]) -> list[str]:
        try:
            seen = squeezed(self.text())
        except Error:  # the page is being replaced by another
            return list(texts)
        return [text for text in texts if squeezed(text) not in seen]

    def click(self, name: str) -> None:
        """Click a button, link or tab; stay with the tab that it opens."""
        found = self.page.get_by_role("button", name=name, exact=True)
        found = found.or_(self.page.get_by_role("link", name=name, exact=True))
        found.or_(self.page.get_by_role("tab", name=name, exact=True)).first.click()
        self.page.wait_for_timeout(500)
        self.page = self.page.context.pages[-1]

    def close(self) -> None:
        """Close the tab; go back to the one before."""
        self.page.close()
        self.page = self.page.context.pages[-1]

    def tick(self, row: str) -> None:
        """Tick the box of a table's row."""
        rows = self.page.get_by_role("row").filter(has_text=row)
        rows.get_by_role("checkbox").first.check(force=True)

    def choose(self, field: str, text: str) -> None:
        """Choose from a list of Prefect's, named by its label or by what it shows now."""
        lists = self.page.locator(".p-select-button__control")
        labelled = self._field(field).locator(".p-select-button__control")
        # by the keyboard: a click without a pause opens the list and closes it again
        labelled.or_(lists.filter(has_text=field)).first.press("Space")
        self.page.locator(".p-select-option").get_by_text(text, exact=True).click()

    def write(self, field: str, text: str) -> None:
        """Fill in a text of Prefect's form."""
        self._field(field).get_by_role("textbox").fill(text)

    def _field(self, name: str) -> Locator:
        label = self.page.get_by_text(name, exact=True)
        return self.page.locator(".schema-form-property").filter(has=label)

    def scroll_to(self, text: str) -> None:
        """Scroll until the text is on the screen."""
        self.page.get_by_text(text).first.scroll_into_view_if_needed(timeout=1000 * PATIENCE_S)

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than its window."""
        return bool(self.page.evaluate("document.scrollingElement.scrollWidth > window.innerWidth"))

    def cut_off(self) -> list[str]:
        """Text of the elements that hide a part of it."""
        return list(self.page.evaluate(CUT))

    def links(self) -> set[str]:
        """Addresses of the page's links, in frames too."""
        script = "links => links.map(link => link.href)"
        return {
            link
            for frame in self.page.frames
            for link in frame.eval_on_selector_all("a[href]", script)
        }

    def picture(self, name: str) -> None:
        """Write a small PNG of the window, if pictures are asked for at its size."""
        folder = os.environ.get("PICTURES")
        size = self.page.viewport_size
        assert size is not None
        if folder and (size["width"], size["height"]) == SIZES[-1]:
            save(self.page.screenshot(), Path(folder) / f"{name}.png")


def _seen_of(frame: Frame, screen: Box) -> Box | None:
    """The part of a frame that is on the screen, in the frame's own coordinates."""
    if frame.parent_frame is None:
        return screen
    box = frame.frame_element().bounding_box()
    if box is None:
        return None
    return Box(
        max(0, -box["y"]),
        max(0, -box["x"]),
        min(box["height"], screen.bottom - box["y"]),
        min(box["width"], screen.right - box["x"]),
    )


def save(png: bytes, path: Path) -> None:
    """Write a picture in 128 colours."""
    with Image.open(BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    few.save(path, optimize=True)


def squeezed(text: str) -> str:
    """Text without its white space."""
    return re.sub(r"\s+", "", text)


def dead(links: Iterable[str]) -> list[str]:
    """Those of the links to this machine that do not answer with 200, or whose file is absent."""
    found = []
    with httpx.Client(
        trust_env=False,
        timeout=PATIENCE_S,
        follow_redirects=True,
        headers={"Accept": "text/html"},  # as a browser: Prefect answers others with 404
    ) as client:
        for link in sorted({link.partition("#")[0] for link in links}):
            address = urlsplit(link)
            if address.scheme == "file":
                if not Path(unquote(address.path)).is_file():
                    found.append(link)
            elif address.hostname in LOCAL and client.get(link).status_code != httpx.codes.OK:
                found.append(link)
    return found
