"""Which of several servers is asked, and for how long one is left out."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from infra.servers import HOST
from model_code.errors import ServingError
from model_code.serving import connections
from model_code.serving.aio import AsyncTritonClient
from model_code.serving.callback import CallbackPredictor
from model_code.serving.connections import Connection
from model_code.serving.failover import FIRST_S, LONGEST_S, MOST_VERSIONS, Failover
from model_code.serving.wire import Answer

ONE = np.zeros((1, 64, 16), np.float32)
URLS = (f"{HOST}:1", f"{HOST}:2")


def test_the_first_is_asked_until_it_fails_and_again_once_a_probe_is_answered() -> None:
    servers = Failover(3)
    assert servers.order(7, 0.0) == [0, 1, 2]
    assert servers.unreachable(0, 0.0)
    assert not servers.unreachable(0, 0.1)  # one probe is enough
    assert servers.order(7, 0.2) == servers.order(8, 9.0) == [1, 2, 0]
    servers.unreachable(1, 0.2)
    servers.unreachable(2, 0.2)
    assert servers.order(7, 0.3) == [0, 1, 2]  # nobody else is left
    servers.probed(0, 0.4, answers=True)
    assert servers.order(7, 0.5) == [0, 1, 2]


def test_probes_back_off_while_a_server_fails_or_fails_again_soon() -> None:
    servers = Failover(2)
    servers.unreachable(0, 0.0)
    waits = []
    for _ in range(8):
        waits.append(servers.wait(0))
        servers.probed(0, 0.0, answers=False)
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == LONGEST_S
    servers.probed(0, 10.0, answers=True)
    servers.unreachable(0, 10.1)
    assert servers.wait(0) == LONGEST_S
    servers.probed(0, 20.0, answers=True)
    servers.unreachable(0, 20.1 + LONGEST_S)  # it was well for a while
    assert servers.wait(0) == FIRST_S


def test_a_lacking_version_leaves_a_server_out_for_that_version_and_a_while() -> None:
    servers = Failover(2)
    servers.absent(0, 7, 0.0)
    assert (servers.order(7, 0.05), servers.order(8, 0.05)) == ([1, 0], [0, 1])
    assert servers.order(7, FIRST_S) == [0, 1]
    servers.absent(0, 7, 1.0)
    assert servers.order(7, 1.0 + 1.5 * FIRST_S) == [1, 0]  # longer this time
    servers.answered(0, 7)
    assert servers.order(7, 1.0) == [0, 1]
    for version in range(2 * MOST_VERSIONS):
        servers.absent(0, version, 2.0)
    assert len(servers._absent) <= MOST_VERSIONS


class Played:
    """Servers that do what their place in `does` says: a code, or an answer."""

    def __init__(self, *does: grpc.StatusCode | None) -> None:
        self.does, self.asked, self.live = list(does), [0, 0], False

    def put(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def infer(
            connection: Connection, x_BTF: NDArray[np.float32], version: int | None, end: float
        ) -> Answer:
            place = URLS.index(connection.url)
            self.asked[place] += 1
            code = self.does[place]
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                await asyncio.sleep(end - asyncio.get_running_loop().time())
            if code is not None:
                raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())
            return Answer(np.zeros((len(x_BTF), 2), np.float32), version or 0)

        async def live(*_: Any) -> bool:
            return self.live

        monkeypatch.setattr(Connection, "infer", infer)
        monkeypatch.setattr(Connection, "live", live)


@pytest.mark.parametrize("code", [*connections.UNREACHABLE, *connections.ABSENT])
def test_another_server_answers_within_the_same_deadline(
    code: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(code, None)
    played.put(monkeypatch)

    async def ask() -> tuple[int, int]:
        async with AsyncTritonClient(URLS, version=3) as client:
            assert (await client.ask(ONE, deadline_s=0.2)).version == 3
            await client.ask(ONE, deadline_s=0.2)
            return client.failovers, client.retried

    assert asyncio.run(ask()) == (1, 0)
    assert played.asked == [1, 2]  # the second request went to the healthy one at once


def test_requests_return_to_the_first_server_after_a_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played = Played(grpc.StatusCode.UNAVAILABLE, None)
    played.put(monkeypatch)

    async def ask() -> None:
        async with AsyncTritonClient(URLS) as client:
            await client.ask(ONE)
            played.live, played.does[0] = True, None
            while played.asked[0] < 2:
                await client.ask(ONE)
                await asyncio.sleep(0.01)
            assert client.failovers == 1

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ((grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE), "UNAVAILABLE"),
        ((grpc.StatusCode.NOT_FOUND, grpc.StatusCode.NOT_FOUND), "NOT_FOUND"),
        ((grpc.StatusCode.INVALID_ARGUMENT, None), "INVALID_ARGUMENT"),
    ],
)
def test_what_no_server_answers_or_one_refuses_is_an_error_that_names_both(
    does: tuple[grpc.StatusCode | None, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(*does)
    played.put(monkeypatch)

    async def ask() -> None:
        async with AsyncTritonClient(URLS, attempts=2) as client:
            await client.ask(ONE)

    with pytest.raises(ServingError, match=said) as caught:
        asyncio.run(ask())
    assert caught.value.where == ", ".join(URLS)
    assert played.asked[1] == {"UNAVAILABLE": 2, "NOT_FOUND": 1, "INVALID_ARGUMENT": 0}[said]


def test_no_address_is_refused_and_the_predictor_takes_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ServingError, match="no server to ask"):
        AsyncTritonClient(())
    played = Played(grpc.StatusCode.UNAVAILABLE, None)
    played.put(monkeypatch)
    outcomes: list[Answer | ServingError] = []
    with CallbackPredictor(URLS, version=4) as predictor:
        predictor.submit(ONE, outcomes.append)
    assert [outcome.version for outcome in outcomes if isinstance(outcome, Answer)] == [4]
