"""`submit` calls back exactly once, whatever the request and the server."""

import asyncio
import math
import socket
import threading
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.servers import HOST
from model_code.errors import ServingError
from model_code.serving import callback
from model_code.serving.aio import AsyncTritonClient
from model_code.serving.callback import CallbackPredictor
from model_code.serving.wire import Answer

URL = f"{HOST}:1"  # nobody is asked
ONE = np.ones((1, 64, 16), np.float32)
DEADLINE_S = 0.03
WINDOWS: dict[str, Any] = {
    "good": ONE,
    "list": ONE.tolist(),
    "none": None,
    "shape": ONE[0],
    "steps": ONE[:, :3],
    "empty": ONE[:0],
    "many": np.repeat(ONE, 65, 0),
    "float64": ONE.astype(np.float64),
    "nan": np.where(ONE > 0, np.float32("nan"), ONE),
    "infinite": ONE * np.float32("inf"),
}
DEADLINES: tuple[Any, ...] = (math.nan, math.inf, -math.inf, None, "1", 0, -1.0, 10**400)
# the version says what the server does
ANSWERS, SLOW, HANGS, UNAVAILABLE, INTERNAL, BROKEN, REFUSES = range(7)


def rpc_error(code: grpc.StatusCode) -> grpc.RpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


class FakeServer(AsyncTritonClient):
    """The client with a server that answers, or fails, as the version says."""

    sent: NDArray[np.float32] | None = None

    async def _infer(self, x_BTF: NDArray[np.float32], version: int | None, *_: Any) -> Answer:
        await asyncio.sleep(0)
        if version == SLOW:
            await asyncio.sleep(0.001)
        elif version == HANGS:
            await asyncio.sleep(3600)
        elif version == UNAVAILABLE:
            raise rpc_error(grpc.StatusCode.UNAVAILABLE)
        elif version == INTERNAL:
            raise rpc_error(grpc.StatusCode.INTERNAL)
        elif version == BROKEN:
            raise ValueError("a mistake of the client")
        elif version == REFUSES:
            raise ServingError("refused")
        self.sent = x_BTF
        return Answer(np.zeros((len(x_BTF), 2), np.float32), version or 0)


requests = st.lists(
    st.tuples(
        st.sampled_from(["good"] * 10 + list(WINDOWS)),
        st.sampled_from(range(7)),
        st.sampled_from((DEADLINE_S,) * 12 + DEADLINES),
    ),
    max_size=12,
)


def sound(window: str, deadline: object) -> bool:
    return window == "good" and deadline == DEADLINE_S


@hypothesis_settings(max_examples=25)
@given(requests, st.integers(1, 12), st.integers(0, 12))
def test_every_request_is_called_back_once_after_submit_returned(some, most, before_close) -> None:
    outcomes: list[list[Answer | ServingError]] = [[] for _ in some]

    async def submit() -> None:
        client = FakeServer(URL, most_in_flight=most)
        closing: asyncio.Task[None] | None = None
        for i, (window, version, deadline) in enumerate(some):
            if i == before_close:
                closing = asyncio.create_task(client.close())
                await asyncio.sleep(0)
            arguments = {"version": version, "deadline_s": deadline}
            client.submit(WINDOWS[window], outcomes[i].append, **arguments)
            assert outcomes[i] == []
        await (closing or client.close())

    asyncio.run(submit())
    assert [len(found) for found in outcomes] == [1] * len(some)
    begun = 0
    for i, ((window, version, deadline), (found,)) in enumerate(zip(some, outcomes, strict=True)):
        taken = sound(window, deadline) and i < before_close and begun < most
        begun += taken
        if taken and version in {ANSWERS, SLOW} and len(some) <= before_close:
            assert isinstance(found, Answer) or "did not respond" in found.what
        if not taken and i < before_close:
            assert isinstance(found, ServingError)
        if i >= before_close:
            assert "closed" in str(found)


@hypothesis_settings(max_examples=15)
@given(requests, st.integers(1, 12), st.integers(0, 12))
def test_an_engine_without_an_event_loop_is_called_back_once(some, most, before_close) -> None:
    outcomes: list[list[Answer | ServingError]] = [[] for _ in some]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callback, "AsyncTritonClient", FakeServer)
        predictor = CallbackPredictor(URL, most_in_flight=most)
        for i, (window, version, deadline) in enumerate(some):
            if i == before_close:
                predictor.close()
            arguments = {"version": version, "deadline_s": deadline}
            predictor.submit(WINDOWS[window], outcomes[i].append, **arguments)
            if not sound(window, deadline) or i >= before_close:
                assert len(outcomes[i]) == 1  # a refusal needs no server
        predictor.close()
    assert [len(found) for found in outcomes] == [1] * len(some)
    for (window, version, deadline), (found,) in zip(some, outcomes, strict=True):
        if not sound(window, deadline) or version not in {ANSWERS, SLOW}:
            assert isinstance(found, ServingError)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (HANGS, "did not respond within"),
        (UNAVAILABLE, "UNAVAILABLE|did not respond within"),
        (INTERNAL, "INTERNAL"),
        (BROKEN, "a mistake of the client"),
        (REFUSES, "refused"),
    ],
)
def test_each_failure_says_what_it_was(version: int, said: str) -> None:
    outcomes: list[Answer | ServingError] = []

    async def submit() -> None:
        async with FakeServer(URL, attempts=2) as client:
            client.submit(ONE, outcomes.append, version=version, deadline_s=DEADLINE_S)

    asyncio.run(submit())
    (found,) = outcomes
    with pytest.raises(ServingError, match=said):
        raise found  # type: ignore[misc]


def test_requests_beyond_the_bound_are_refused_and_later_ones_are_not() -> None:
    outcomes: list[Answer | ServingError] = []

    async def submit() -> None:
        async with FakeServer(URL, most_in_flight=2) as client:
            for _ in range(3):
                client.submit(ONE, outcomes.append, version=ANSWERS, deadline_s=5.0)
            while len(outcomes) < 3:
                await asyncio.sleep(0)
            client.submit(ONE, outcomes.append, version=ANSWERS, deadline_s=5.0)

    asyncio.run(submit())
    refused = [str(found) for found in outcomes if isinstance(found, ServingError)]
    assert len(outcomes) == 4
    assert len(refused) == 1
    assert "2 submitted requests have no response yet" in refused[0]


def test_the_windows_are_copied() -> None:
    """A ring buffer overwrites them after `submit` returned."""

    async def submit() -> None:
        async with FakeServer(URL) as client:
            own = ONE.copy()
            client.submit(own, lambda _: None, version=ANSWERS, deadline_s=5.0)
            own[:] = 9.0
        assert client.sent is not None
        np.testing.assert_array_equal(client.sent, ONE)

    asyncio.run(submit())


def test_a_loop_that_ends_early_calls_back_too() -> None:
    outcomes: list[Answer | ServingError] = []

    async def submit() -> None:
        FakeServer(URL).submit(ONE, outcomes.append, version=HANGS, deadline_s=5.0)

    asyncio.run(submit())
    assert [str(found).splitlines()[0] for found in outcomes] == ["the request was cancelled"]


def test_an_error_in_a_callback_stops_no_other(monkeypatch) -> None:
    monkeypatch.setattr(callback, "AsyncTritonClient", FakeServer)
    outcomes: list[Answer | ServingError] = []

    def broken(_: object) -> None:
        raise RuntimeError("the desk's own code")

    predictor = CallbackPredictor(URL)
    predictor.submit(ONE, broken, version=ANSWERS)
    predictor.submit(ONE, outcomes.append, version=ANSWERS)
    with pytest.raises(RuntimeError, match="own code"):
        predictor.close()
    assert len(outcomes) == 1
    predictor.close()  # again: nothing is left to do


def test_a_callback_may_submit_but_not_close(monkeypatch) -> None:
    monkeypatch.setattr(callback, "AsyncTritonClient", FakeServer)
    outcomes: list[Answer | ServingError] = []
    done = threading.Event()
    threads: list[str] = []

    def again(_: object) -> None:
        threads.append(threading.current_thread().name)
        with pytest.raises(ServingError, match="called by a callback"):
            predictor.close()
        predictor.submit(ONE, outcomes.append, version=ANSWERS)
        done.set()

    with CallbackPredictor(URL) as predictor:
        predictor.submit(ONE, again, version=ANSWERS)
        assert done.wait(20)
    assert threads == ["tickline-predictor"]
    assert [type(found) for found in outcomes] == [Answer]


def test_a_server_that_accepts_and_never_answers_meets_the_deadline() -> None:
    outcomes: list[Answer | ServingError] = []
    with (
        socket.create_server((HOST, 0)) as silent,
        CallbackPredictor(f"{HOST}:{silent.getsockname()[1]}") as predictor,
    ):
        predictor.submit(ONE, outcomes.append, deadline_s=0.1)
    (found,) = outcomes
    assert isinstance(found, ServingError)


def test_an_engine_gets_the_real_servers_answers(url, x_NTF, expected) -> None:
    outcomes: list[Answer | ServingError] = []
    with CallbackPredictor(url) as predictor:
        predictor.submit(x_NTF, outcomes.append)
        predictor.submit(x_NTF, outcomes.append, version=9)
    (answer,) = [found for found in outcomes if isinstance(found, Answer)]
    np.testing.assert_allclose(answer.logits_BC, expected[2], atol=1e-4)
    assert len(outcomes) == 2
