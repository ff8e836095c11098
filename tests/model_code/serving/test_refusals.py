"""What every client refuses before anything is sent, and how often it sends the rest."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from infra.servers import HOST
from model_code.errors import ServingError
from model_code.repository.route import Route, Target
from model_code.serving import refusals, wire
from model_code.serving.aio import AsyncTritonClient
from model_code.serving.client import TritonClient
from model_code.serving.connections import Connection
from model_code.serving.routed import RoutedClient
from model_code.serving.wire import Answer
from model_code.settings import MODEL_NAME
from tests.model_code.serving.test_submit import DEADLINES, ONE, WINDOWS

URL = f"{HOST}:1"  # nobody is asked


def sync(x_BTF: Any, deadline_s: Any, _: Path) -> object:
    with TritonClient(URL) as client:
        return client.ask(x_BTF, timeout_s=deadline_s)


def alone(x_BTF: Any, deadline_s: Any, _: Path) -> object:
    async def ask() -> object:
        async with AsyncTritonClient(URL) as client:
            return await client.ask(x_BTF, deadline_s=deadline_s)

    return asyncio.run(ask())


def routed(x_BTF: Any, deadline_s: Any, folder: Path) -> object:
    Route(champion=Target(model=MODEL_NAME, version=2)).save(folder / "route.json")

    async def ask() -> object:
        async with RoutedClient(URL, folder / "route.json") as client:
            return await client.ask(x_BTF, deadline_s)

    return asyncio.run(ask())


CLIENTS: tuple[Callable[[Any, Any, Path], object], ...] = (sync, alone, routed)
every_client = pytest.mark.parametrize("client", CLIENTS)


@every_client
@pytest.mark.parametrize("what", [name for name in WINDOWS if name != "good"])
def test_bad_windows_are_one_error_and_need_no_server(
    client: Callable[[Any, Any, Path], object], what: str, tmp_path: Path
) -> None:
    with pytest.raises(ServingError, match=r"^(windows|[0-9]+ windows)"):
        client(WINDOWS[what], 5.0, tmp_path)


@every_client
@pytest.mark.parametrize("deadline", DEADLINES, ids=lambda one: str(one)[:6])
def test_a_bad_deadline_is_one_error(
    client: Callable[[Any, Any, Path], object], deadline: Any, tmp_path: Path
) -> None:
    with pytest.raises(ServingError, match="the deadline is") as caught:
        client(ONE, deadline, tmp_path)
    assert "above 0 and up to 60" in caught.value.remedy


def test_masked_windows_are_refused() -> None:
    with pytest.raises(ServingError, match="windows are a MaskedArray"):
        wire.check_windows(np.ma.masked_invalid(ONE))


@pytest.mark.parametrize("good", [1, 60, 0.05, np.float32(0.5), np.int64(2), Fraction(1, 2)])
def test_every_real_number_is_a_deadline(good: Any) -> None:
    assert refusals.seconds(good) == float(good)


@pytest.mark.parametrize("bad", [10**5000, Decimal(1), "1", [1.0], np.array([1.0]), 60.1], ids=type)
def test_everything_else_is_refused(bad: Any) -> None:
    with pytest.raises(ServingError, match="the deadline is"):
        refusals.seconds(bad)


class Played:
    """A server that fails in this way as often as it is said."""

    def __init__(self, times: int, code: grpc.StatusCode, details: str = "") -> None:
        self.times = times
        self.asked: list[str] = []
        self._error = grpc.aio.AioRpcError(
            code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details
        )

    def put(self, patch: pytest.MonkeyPatch) -> None:
        async def infer(at: Connection, x_BTF: NDArray[np.float32], *_: Any) -> Answer:
            self.asked.append(at.url)
            if len(self.asked) <= self.times:
                raise self._error
            return Answer(np.zeros((len(x_BTF), 2), np.float32), 1)

        patch.setattr(Connection, "infer", infer)


def asked(attempts: int, urls: tuple[str, ...] = (URL,)) -> Answer:
    async def ask() -> Answer:
        async with AsyncTritonClient(urls, attempts=attempts) as client:
            return await client.ask(ONE)

    return asyncio.run(ask())


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_an_unreachable_server_is_asked_as_often_as_attempts_says(
    attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(99, grpc.StatusCode.UNAVAILABLE)
    played.put(monkeypatch)
    with pytest.raises(ServingError, match="UNAVAILABLE"):
        asked(attempts)
    assert len(played.asked) == attempts


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.CANCELLED, "CANCELLED"),  # by a server that stops
        (grpc.StatusCode.INTERNAL, "Stub process 'financial_predictor_1_0_0' is not healthy."),
    ],
)
def test_a_request_that_a_dying_server_failed_is_sent_again(
    code: grpc.StatusCode, details: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(2, code, details)
    played.put(monkeypatch)
    assert asked(3).version == 1
    assert len(played.asked) == 3
    played.asked = []
    with pytest.raises(ServingError):
        asked(1)
    assert len(played.asked) == 1


SPOILED = "batch size 72 for 'financial_predictor_0_0', max allowed is 64"


@pytest.mark.parametrize("urls", [(URL,), (URL, f"{HOST}:2")])
def test_a_request_of_a_spoiled_batch_is_sent_again_to_the_same_server(
    urls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(1, grpc.StatusCode.INTERNAL, SPOILED)
    played.put(monkeypatch)
    assert asked(2, urls).version == 1
    assert played.asked == [urls[0]] * 2
    played.times, played.asked = 99, []
    with pytest.raises(ServingError, match="max allowed is 64"):
        asked(3, urls)
    assert played.asked == [urls[0]] * 3
    played.asked = []
    with pytest.raises(ServingError):
        asked(1, urls)
    assert played.asked == [urls[0]]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
def test_no_other_error_is_sent_again(
    code: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(99, code, "another reason")
    played.put(monkeypatch)
    with pytest.raises(ServingError):
        asked(8)
    assert len(played.asked) == 1
