"""A client is used in the process and the event loop that opened it, or refuses."""

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.servers import HOST
from model_code.errors import ServingError
from model_code.repository.route import Route, Target
from model_code.serving.aio import AsyncTritonClient
from model_code.serving.callback import CallbackPredictor
from model_code.serving.client import TritonClient
from model_code.serving.routed import RoutedClient
from model_code.serving.wire import Answer
from model_code.settings import MODEL_NAME
from tests.support import forked
from tests.support.commands import module

ONE = np.ones((1, 64, 16), np.float32)
FORKED = "this process was forked from one that had opened a client of the model server"


@pytest.mark.parametrize("kind", forked.KINDS)
def test_a_fork_is_refused_and_its_parent_is_answered(kind: str, url: str, tmp_path: Path) -> None:
    route = tmp_path / "route.json"
    Route(champion=Target(model=MODEL_NAME, version=2)).save(route)
    found = json.loads(module("tests.support.forked", kind, url, str(route)))
    assert found == {
        "told": [FORKED, FORKED, "answered"],
        "status": 0,
        "answered": forked.REQUESTS,
    }


def test_a_fork_that_submits_is_called_back_and_waits_for_no_lock(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a fork sees it: another process id, no thread that would answer, and a lock for ever."""
    outcomes: list[Answer | ServingError] = []
    with CallbackPredictor(url) as predictor, TritonClient(url) as client:
        alone = AsyncTritonClient(url)
        with monkeypatch.context() as patch, predictor._lock:
            patch.setattr(os, "getpid", lambda: 0)
            predictor.submit(ONE, outcomes.append)
            alone.submit(ONE, outcomes.append)
            for close in (predictor.close, client.close, lambda: asyncio.run(alone.close())):
                close()
            with pytest.raises(ServingError, match="forked"):
                client.live()
        assert [found.what for found in outcomes if isinstance(found, ServingError)] == [FORKED] * 2
        assert client.live()


def test_a_channel_closed_during_a_call_is_a_closed_client(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = TritonClient(url)

    def closing(*_: object, **__: object) -> None:
        client.close()
        raise ValueError("Cannot invoke RPC on closed channel!")

    monkeypatch.setattr(client._stub, "ServerMetadata", closing)
    with pytest.raises(ServingError, match="the client is closed"):
        client.server()


def routed(url: str, folder: Path) -> RoutedClient:
    route = folder / "route.json"
    Route(champion=Target(model=MODEL_NAME, version=2)).save(route)
    return RoutedClient(url, route)


OPEN: dict[str, Callable[[str, Path], Any]] = {
    "AsyncTritonClient": lambda url, _: AsyncTritonClient(url),
    "RoutedClient": routed,
}
both = pytest.mark.parametrize("kind", OPEN)


@both
def test_a_client_opened_before_the_event_loop_is_used_in_the_first_one(
    kind: str, url: str, tmp_path: Path
) -> None:
    client = OPEN[kind](url, tmp_path)

    async def ask() -> None:
        assert (await client.ask(ONE)).logits_BC.shape == (1, 2)
        await client.__aexit__()

    asyncio.run(ask())


@both
def test_another_event_loop_is_refused_and_the_first_one_is_answered(
    kind: str, url: str, tmp_path: Path
) -> None:
    refused: list[str] = []

    async def ask() -> None:
        client = OPEN[kind](url, tmp_path)
        await client.ask(ONE)

        def elsewhere() -> None:
            for act in (lambda: client.ask(ONE), client.__aexit__):
                with pytest.raises(ServingError) as caught:
                    asyncio.run(act())
                refused.append(caught.value.what)

        await asyncio.to_thread(elsewhere)
        assert (await client.ask(ONE)).logits_BC.shape == (1, 2)
        await client.__aexit__()

    asyncio.run(ask())
    assert refused == ["the client belongs to another event loop"] * 2


def test_a_client_whose_event_loop_has_ended_is_refused_and_may_be_closed(url: str) -> None:
    client = AsyncTritonClient(url)
    asyncio.run(client.predict(ONE))
    with pytest.raises(ServingError, match="another event loop"):
        asyncio.run(client.predict(ONE))
    asyncio.run(client.close())
    with pytest.raises(ServingError, match="the client is closed"):
        asyncio.run(client.predict(ONE))


def test_a_submit_in_another_event_loop_or_in_none_is_called_back_with_the_refusal(
    url: str,
) -> None:
    outcomes: list[Answer | ServingError] = []

    async def submit(client: AsyncTritonClient) -> None:
        client.submit(ONE, outcomes.append)
        assert outcomes == []

    async def ask() -> None:
        async with AsyncTritonClient(url) as client:
            await client.ask(ONE)
            await asyncio.to_thread(lambda: asyncio.run(submit(client)))
            (found,) = outcomes
            assert isinstance(found, ServingError)
            assert "another event loop" in found.what
            await asyncio.to_thread(client.submit, ONE, outcomes.append)
            (_, found) = outcomes
            assert isinstance(found, ServingError)
            assert "no event loop is running" in found.what

    asyncio.run(ask())


@both
def test_a_closed_client_is_refused(kind: str, url: str, tmp_path: Path) -> None:
    async def ask() -> None:
        client = OPEN[kind](url, tmp_path)
        await client.ask(ONE)
        await client.__aexit__()
        with pytest.raises(ServingError, match="the client is closed"):
            await client.ask(ONE)
        await client.__aexit__()  # again: nothing is left to do

    asyncio.run(ask())


def test_what_is_asked_while_the_client_is_closed_is_refused(url: str) -> None:
    async def ask() -> list[object]:
        client = AsyncTritonClient(url)
        await client.ask(ONE)
        asked: list[Awaitable[Answer]] = [asyncio.create_task(client.ask(ONE)) for _ in range(50)]
        await asyncio.sleep(0)  # they are sent
        await client.close()
        return list(await asyncio.gather(*asked, return_exceptions=True))

    found = asyncio.run(ask())
    kinds = {type(one) for one in found}
    assert ServingError in kinds
    assert kinds <= {ServingError, Answer}
    assert {one.what for one in found if isinstance(one, ServingError)} == {"the client is closed"}


def test_every_method_of_a_closed_synchronous_client_is_refused(url: str) -> None:
    client = TritonClient(url)
    client.close()
    client.close()
    calls: tuple[Callable[[], object], ...] = (
        client.live,
        client.server,
        client.ready,
        client.load,
        lambda: client.load_bytes("a", "{}", {}),
        client.unload,
        client.index,
        client.versions,
        client.statistics,
        lambda: client.predict(ONE),
    )
    for call in calls:
        with pytest.raises(ServingError, match="the client is closed"):
            call()


def test_a_synchronous_client_closed_by_another_thread_refuses(url: str) -> None:
    client = TritonClient(url)
    errors: list[BaseException] = []
    asked = threading.Event()

    def ask() -> None:
        try:
            while True:
                client.predict(ONE)
                asked.set()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(20)
    client.close()
    thread.join(20)
    (error,) = errors
    assert isinstance(error, ServingError)


def test_a_predictor_that_cannot_be_opened_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    for wrong in ({"attempts": 0}, {"attempts": 1.5}, {"attempts": True}):
        with pytest.raises(ServingError, match="attempts are"):
            CallbackPredictor(f"{HOST}:1", **wrong)
    assert set(threading.enumerate()) <= before  # threads of other tests may have ended
