"""Reading a page: states, and what is said when there is none."""

import asyncio
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from infra.live.monitoring import page
from infra.live.monitoring.client import DEFAULT_URL, Client, ServiceAwayError
from infra.live.monitoring.document import ENCODER, Document
from infra.servers import HOST
from model_code.settings import Settings
from tests.support.observed import busy


def settings(home: Path, password: str | None = None) -> Settings:
    return Settings(home=home, auth_password=None if password is None else SecretStr(password))


def serving(home: Path, password: str | None = None) -> httpx.ASGITransport:
    return httpx.ASGITransport(
        page.build(busy().view(), settings(home, password), HOST, running=lambda: False)
    )


def answering(status: int, content: bytes = b"{}") -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(status, content=content))


def test_the_state_of_a_service(tmp_path: Path) -> None:
    for password in (None, "correct horse"):
        one = Client(DEFAULT_URL, settings(tmp_path, password), serving(tmp_path, password))
        assert asyncio.run(one.once()).ledger.taken == 129


def test_without_the_password_it_says_which_variable_to_set(tmp_path: Path) -> None:
    one = Client(DEFAULT_URL, settings(tmp_path), serving(tmp_path, "correct horse"))
    with pytest.raises(ServiceAwayError, match="needs a password") as error:
        asyncio.run(one.once())
    assert "TICKLINE_AUTH_PASSWORD" in error.value.remedy


@pytest.mark.parametrize(
    ("transport", "message"),
    [
        (answering(503), "HTTP status 503"),
        (answering(200, b"<html>"), "not a page of this version of Tickline"),
        (answering(200, b'{"at_ms": 1}'), "not a page of this version of Tickline"),
        (answering(200, b"\xff"), "not a page of this version of Tickline"),
        (None, "no live service responds"),
    ],
    ids=["busy", "html", "old", "bytes", "away"],
)
def test_what_is_no_service_is_an_error(
    transport: httpx.AsyncBaseTransport | None, message: str, tmp_path: Path
) -> None:
    one = Client("http://127.0.0.1:1/", settings(tmp_path), transport)
    with pytest.raises(ServiceAwayError, match=message) as error:
        asyncio.run(one.once())
    assert error.value.where == "http://127.0.0.1:1"


def test_the_end_of_the_events_is_an_error(tmp_path: Path) -> None:
    content = b"retry: 2000\n\ndata: " + ENCODER.encode(busy().view().document()) + b"\n\n"
    found: list[Document] = []

    async def follow() -> None:
        reader = Client(DEFAULT_URL, settings(tmp_path), answering(200, content))
        async for document in reader.documents():
            found.append(document)  # noqa: PERF401 (what came before the error is kept)

    with pytest.raises(ServiceAwayError, match="closed the connection"):
        asyncio.run(follow())
    assert [one.ledger.taken for one in found] == [129]
