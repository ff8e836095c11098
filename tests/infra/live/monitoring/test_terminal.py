"""The terminal, driven by Textual's pilot at 80 x 24."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from infra.live.monitoring.client import Client, ServiceAwayError
from infra.live.monitoring.document import Document
from infra.live.monitoring.terminal import Monitor, sparkline
from model_code.settings import Settings
from tests.support.market import SYMBOLS
from tests.support.observed import busy


class Scripted(Client):
    """Documents, or an error, in the order they are put."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", Settings(home=Path("/nowhere")))
        self.given: asyncio.Queue[Document | Exception] = asyncio.Queue()

    async def documents(self) -> AsyncIterator[Document]:
        while True:
            one = await self.given.get()
            if isinstance(one, Exception):
                raise one
            yield one


def shown(pilot: Pilot[None]) -> str:
    """What stands on the screen."""
    lines = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in lines)


async def settle(pilot: Pilot[None], client: Scripted, *given: Document | Exception) -> str:
    for one in given:
        client.given.put_nowait(one)
    while not client.given.empty():
        await pilot.pause()
    await pilot.pause()
    return shown(pilot)


def drive(size: tuple[int, int] = (80, 24)) -> dict[str, str]:
    """Screens by what happened."""
    document = busy().view().document()
    client = Scripted()
    screens = {}

    async def play() -> None:
        app = Monitor(client, retry_s=0.0)
        async with app.run_test(size=size) as pilot:
            screens["connecting"] = shown(pilot)
            screens["live"] = await settle(pilot, client, document)
            away = ServiceAwayError("no live service responds", remedy="start it")
            screens["away"] = await settle(pilot, client, away)
            quiet = msgspec.structs.replace(document, state="interrupted")
            screens["interrupted"] = await settle(pilot, client, quiet)
            await pilot.press("p")
            screens["paused"] = await settle(pilot, client, document)
            await pilot.press("p")
            screens["resumed"] = await settle(pilot, client, document)
            before = app.theme
            await pilot.press("t")
            assert app.theme != before
            await pilot.press("q")
        assert app.return_code == 0

    asyncio.run(play())
    return screens


@pytest.fixture(scope="module")
def screens() -> dict[str, str]:
    return drive()


def test_everything_fits_80_by_24(screens: dict[str, str]) -> None:
    found = screens["live"]
    assert "live, version 7, 8" in found
    assert "broker up" in found
    for symbol in SYMBOLS:
        assert symbol in found
    for word in ("tick to decision", "transport", "service", "decided", "dead-lettered", "lost"):
        assert word in found, word
    assert "Quit" in found


def test_it_says_that_it_connects_and_connects_again(screens: dict[str, str]) -> None:
    assert "away: connecting" in screens["connecting"]
    assert "away: no live service responds. start it" in screens["away"]
    assert SYMBOLS[0] in screens["away"]
    assert "away" not in screens["interrupted"]


def test_an_interrupted_stream_is_said(screens: dict[str, str]) -> None:
    assert "Stream interrupted. Check the feed and the broker." in screens["interrupted"]


def test_a_pause_keeps_what_is_shown(screens: dict[str, str]) -> None:
    assert "interrupted, version 7, 8, up 0 min, paused" in screens["paused"]
    assert "live, version 7, 8" in screens["resumed"]


def test_probabilities_as_bars() -> None:
    assert sparkline([0.0, 0.49, 0.5, 1.0]) == "▁▄▅█"
