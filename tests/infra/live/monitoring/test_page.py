"""The page: who may read it, what it sends, and that a slow reader holds nobody up."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from infra.live.monitoring import page
from infra.live.monitoring.document import DECODER, Document
from infra.servers import HOST, free_port
from model_code.errors import ConfigError, TicklineError
from model_code.live.reasons import SUPPRESSED, Column
from model_code.pages.page import switchable
from model_code.settings import Settings
from tests.support.observed import Desk, busy

PASSWORD = "correct horse"  # noqa: S105


def settings(home: Path, password: str | None = None) -> Settings:
    secret = None if password is None else SecretStr(password)
    return Settings(home=home, auth_username="desk", auth_password=secret)


@pytest.fixture
def desk() -> Desk:
    return busy()


@pytest.fixture
def served(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's address."""
    monkeypatch.setattr(page, "PERIOD_S", 0.01)
    port = free_port()
    stop = page.serve(desk.view(), settings(tmp_path), port)
    yield f"http://{HOST}:{port}"
    stop()


class Reader:
    """Requests to the application, without a network."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def get(self, address: str, **options: Any) -> httpx.Response:
        async def get() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as one:
                return await one.get(address, **options)

        return asyncio.run(get())


def client(desk: Desk, home: Path, password: str | None = None, host: str = HOST) -> Reader:
    return Reader(page.build(desk.view(), settings(home, password), host, running=lambda: False))


def events(url: str, count: int) -> list[Document]:
    found = []
    with httpx.stream("GET", f"{url}/api/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                found.append(DECODER.decode(line.removeprefix("data: ")))
            if len(found) == count:
                break
    return found


def test_the_page_is_one_file_that_loads_nothing_from_elsewhere(desk: Desk, tmp_path: Path) -> None:
    answer = client(desk, tmp_path).get("/")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"https?://|@import|<script src|<link[^>]+stylesheet", answer.text)
    assert answer.text.count('lang="en"') == 1


def test_the_page_knows_every_column_and_every_suppressed_reason() -> None:
    text = page.FILE.read_text("utf-8")
    (columns,) = re.findall(r"const COLUMNS = \{(.*?)\};", text, re.DOTALL)
    assert set(re.findall(r"\"?([\w-]+)\"?: \"--", columns)) == set(Column)
    (reasons,) = re.findall(r"const SUPPRESSED = new Set\(\[(.*?)\]\)", text, re.DOTALL)
    assert set(re.findall(r"\"(\w+)\"", reasons)) == set(SUPPRESSED)


def test_the_page_has_a_note_for_every_state() -> None:
    text = page.FILE.read_text("utf-8")
    (notes,) = re.findall(r"const notes = \{(.*?)\n  \};", text, re.DOTALL)
    named = {name.strip('"') for name in re.findall(r"^    (\w+|\"[^\"]+\"):", notes, re.MULTILINE)}
    states = set(Document.__annotations__["state"].__args__)
    assert named == {"connecting", "connection lost"} | states - {"live"}


def test_the_state_is_one_json_document(desk: Desk, tmp_path: Path) -> None:
    answer = client(desk, tmp_path).get("/api/state")
    assert DECODER.decode(answer.content).ledger.taken == 129


def test_with_a_password_every_address_needs_it(desk: Desk, tmp_path: Path) -> None:
    reader = client(desk, tmp_path, PASSWORD)
    for address in ("/", "/api/state", "/api/events"):
        refused = reader.get(address)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        assert reader.get(address, auth=("desk", "wrong")).status_code == 401
        assert reader.get(address, auth=("admin", PASSWORD)).status_code == 401
        assert reader.get(address, auth=("desk", PASSWORD)).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "desk.example", "::"])  # noqa: S104
def test_a_public_address_needs_a_password(host: str, desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="open to everyone") as error:
        client(desk, tmp_path, host=host)
    assert "TICKLINE_AUTH_PASSWORD" in error.value.remedy
    assert client(desk, tmp_path, PASSWORD, host).get("/").status_code == 401


def test_without_a_password_no_other_name_may_lead_here(desk: Desk, tmp_path: Path) -> None:
    reader = client(desk, tmp_path)
    assert reader.get("/api/state", headers={"Host": "evil.example"}).status_code == 400
    assert reader.get("/api/state", headers={"Host": "localhost:8750"}).status_code == 200


def test_no_schema_is_published(desk: Desk, tmp_path: Path) -> None:
    reader = client(desk, tmp_path)
    assert [reader.get(name).status_code for name in ("/docs", "/openapi.json")] == [404, 404]


def test_events_send_the_points_once(desk: Desk, served: str) -> None:
    first, second = events(served, 2)
    assert sum(len(one.points) for one in first.instruments) == 2
    assert [one.symbol for one in second.instruments if one.points] == [
        one.symbol for one in first.instruments if one.points[-1].at_ms == 1723118401250
    ]


def test_a_reader_that_does_not_read_delays_no_other(
    served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = (HOST, int(served.rsplit(":", 1)[1]))
    with socket.create_connection(address) as slow:
        slow.sendall(f"GET /api/events HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert len(events(served, 20)) == 20


def test_the_number_of_readers_is_bounded(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_CLIENTS", 1)
    with httpx.stream("GET", f"{served}/api/events") as answer:
        lines = answer.iter_lines()  # closes the connection when it is collected
        next(lines)
        assert not events_answer(served)
    until = time.monotonic() + 10
    while not events_answer(served) and time.monotonic() < until:
        time.sleep(0.02)
    assert events_answer(served)


def events_answer(url: str) -> bool:
    with httpx.stream("GET", f"{url}/api/events") as answer:
        return answer.status_code == 200


def test_a_taken_port_is_an_error_with_a_remedy(desk: Desk, served: str, tmp_path: Path) -> None:
    port = int(served.rsplit(":", 1)[1])
    with pytest.raises(TicklineError, match="cannot serve the page") as error:
        page.serve(desk.view(), settings(tmp_path), port)
    assert "--page" in error.value.remedy


def test_the_page_has_the_look_of_all_pages_and_defines_no_colours(
    desk: Desk, tmp_path: Path
) -> None:
    text = client(desk, tmp_path).get("/").text
    assert switchable() in text
    own = text.replace(switchable(), "")
    assert not re.findall(r"#[0-9a-f]{3}(?:[0-9a-f]{3})?\b", own)
    used = set(re.findall(r"var\(--([\w-]+)\)|\"--([\w-]+)\"", own))
    known = set(re.findall(r"--([\w-]+):", switchable()))
    assert {name for pair in used for name in pair if name} <= known


def test_the_page_can_be_read_by_a_screen_reader_and_a_keyboard() -> None:
    text = page.FILE.read_text("utf-8")
    assert text.count("<h1") == 1
    assert not re.findall(r"<th(?! scope)[^e]", text)
    assert text.count('class="scroll"') == text.count('class="scroll" role="region" aria-label=')
