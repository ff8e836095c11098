"""The running service in a terminal of 80 x 24 or more."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Static

from infra.live.monitoring import text
from infra.live.monitoring.client import Client, ServiceAwayError
from infra.live.monitoring.document import Document

RETRY_S = 2.0
KEPT = 24
LEVELS = "▁▂▃▄▅▆▇█"
COLOURS = {"live": "green", "interrupted": "red", "no decisions": "red"}


class Monitor(App[None]):
    """Follows a service and connects again when it was away.

    Args:
        client: of its page.
        retry_s: between two attempts.
    """

    TITLE = "Tickline live"
    CSS = """
    #head { height: auto; padding: 0 1; }
    #instruments { height: 1fr; min-height: 4; padding: 0 1; }
    #below { height: auto; max-height: 12; padding: 0 1; }
    #stages { width: 3fr; } #ledger { width: 2fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("p", "pause", "Pause"),
        ("t", "theme", "Light or dark"),
    ]

    def __init__(self, client: Client, retry_s: float = RETRY_S) -> None:
        super().__init__()
        self._client, self._retry_s = client, retry_s
        self._probabilities: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._paused = False
        self.document: Document | None = None
        self.away = "connecting"

    def compose(self) -> ComposeResult:
        """The widgets, top to bottom."""
        yield Static(id="head")
        with VerticalScroll(id="instruments", can_focus=True):
            yield Static(id="table")
        with Horizontal(id="below"):
            yield Static(id="stages")
            yield Static(id="ledger")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to follow."""
        self.show()
        self.run_worker(self.follow(), exclusive=True)

    def action_pause(self) -> None:
        """Keep what is shown, or show the newest again."""
        self._paused = not self._paused
        self.show()

    def action_theme(self) -> None:
        """Change between dark and light."""
        self.theme = "textual-light" if self.theme == "textual-dark" else "textual-dark"

    async def follow(self) -> None:
        """Show each document; connect again after an error, without end."""
        while True:
            try:
                async for document in self._client.documents():
                    self.away = ""
                    self._take(document)
            except ServiceAwayError as error:
                self.away = f"{error.what}. {error.remedy}"
                self.show()
            await asyncio.sleep(self._retry_s)

    def _take(self, document: Document) -> None:
        for one in document.instruments:
            self._probabilities[one.symbol].append(one.probability)
        if not self._paused:
            self.document = document
        self.show()

    def show(self) -> None:
        """Draw the newest document."""
        document = self.document
        self.query_one("#head", Static).update(self._head(document))
        if document is None:
            return
        self.query_one("#table", Static).update(self._instruments(document))
        self.query_one("#stages", Static).update(_table(text.stage_rows(document)))
        self.query_one("#ledger", Static).update(_table(text.ledger_rows(document)))

    def _head(self, document: Document | None) -> Text:
        found = Text()
        if self.away:
            found.append(f"away: {self.away}\n", "bold red")
        if document is None:
            return found
        state = text.headline(document) + (", paused" if self._paused else "")
        found.append(state + "\n", f"bold {COLOURS.get(document.state, 'yellow')}")
        found.append(f"{text.rates(document)}\n{text.part_line(document)}")
        note = text.NOTES[document.state]
        return found.append(f"\n{note}" if note else "")

    def _instruments(self, document: Document) -> Table:
        heading, *rows = text.instrument_rows(document)
        drawn = [(*row[:5], sparkline(self._probabilities[row[0]])) for row in rows]
        return _table([(*heading[:5], "probability"), *drawn])


def sparkline(values: Iterable[float]) -> str:
    """Probabilities as bars, 0 to 1."""
    return "".join(LEVELS[min(int(value * len(LEVELS)), len(LEVELS) - 1)] for value in values)


def _table(rows: text.Rows) -> Table:
    heading, *others = rows
    found = Table(box=None, pad_edge=False, expand=False, header_style="bold")
    for place, name in enumerate(heading):
        found.add_column(name, justify="left" if place == 0 else "right", no_wrap=True)
    for row in others:
        found.add_row(*row)
    return found
