"""Load tests of the model server: a closed loop of clients, or an open loop at a fixed rate.

In the open loop latency counts from the scheduled send time, not from when a busy client sends the
request. A closed loop hides queueing delays (coordinated omission; Tene, "How NOT to measure
latency").

Shapes: N windows, T = 64 steps, F = 16 features, C = 2 classes, R answered requests.
"""

import asyncio
import selectors
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_code.errors import ServingError
from model_code.serving.aio import DEADLINE_S, AsyncTritonClient
from model_code.settings import MODEL_NAME

Expected = Mapping[int, NDArray[np.float32]]  # version -> logits_NC
CONNECTIONS = 4
SHOWN_ERRORS = 5


@dataclass(frozen=True)
class LoadResult:
    """Results measured at the clients.

    Attributes:
        latency_ms_R: of each answered request.
        requests: sent.
        failed: without a response; the reasons are in `errors`.
        wrong: responses that differ from the expected logits of the responding version.
        seconds: from the first request to the last response.
        versions: number of responses by model version.
        errors: a few of the messages, each with its count.
    """

    latency_ms_R: NDArray[np.float64]
    requests: int
    failed: int
    wrong: int
    seconds: float
    versions: dict[int, int]
    errors: dict[str, int]

    @property
    def throughput(self) -> float:
        """Responses per second."""
        return len(self.latency_ms_R) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """The `percent` percentile of the latency, in ms."""
        return float(np.percentile(self.latency_ms_R, percent))


def closed_loop(
    url: str,
    x_NTF: NDArray[np.float32],
    *,
    concurrency: int,
    requests: int,
    model: str = MODEL_NAME,
    version: int | None = None,
    expected: Expected | None = None,
    tolerance: float = 1e-4,
    deadline_s: float = DEADLINE_S,
    stop: threading.Event | None = None,
) -> LoadResult:
    """Run clients that each send the next single-window request after the previous response.

    Args:
        url: gRPC host:port.
        x_NTF: windows, sent in turn, one per request.
        concurrency: number of clients.
        requests: in total.
        model: served name.
        version: pinned; None for the server's newest.
        expected: correct logits of every window, by version; a response of another version is
            wrong.
        tolerance: largest |logit difference| of a correct response.
        deadline_s: of one request.
        stop: ends the load early.
    """
    recorder = _Recorder(expected, tolerance)

    async def run() -> None:
        turn = iter(range(requests))
        async with _clients(url, model, version, min(concurrency, CONNECTIONS)) as clients:

            async def work(client: AsyncTritonClient) -> None:
                for number in turn:  # one shared iterator: the next free client takes the request
                    if stop is not None and stop.is_set():
                        return
                    index = number % len(x_NTF)
                    await recorder.send(client, x_NTF, index, time.perf_counter(), deadline_s)

            await asyncio.gather(
                *(work(clients[number % len(clients)]) for number in range(concurrency))
            )

    return recorder.run(run)


def open_loop(
    url: str,
    x_NTF: NDArray[np.float32],
    *,
    rate_hz: float,
    seconds: float,
    model: str = MODEL_NAME,
    version: int | None = None,
    expected: Expected | None = None,
    tolerance: float = 1e-4,
    deadline_s: float = DEADLINE_S,
) -> LoadResult:
    """Send single-window requests at a fixed rate, without waiting for responses.

    Args:
        rate_hz: requests per second, evenly spaced.
        seconds: duration. The other arguments are those of `closed_loop`.
    """
    recorder = _Recorder(expected, tolerance)

    async def run() -> None:
        async with _clients(url, model, version, CONNECTIONS) as clients:
            begin = time.perf_counter()
            pending: set[asyncio.Task[None]] = set()
            for number in range(round(rate_hz * seconds)):
                due = begin + number / rate_hz
                await asyncio.sleep(due - time.perf_counter())
                client, index = clients[number % len(clients)], number % len(x_NTF)
                task = asyncio.create_task(recorder.send(client, x_NTF, index, due, deadline_s))
                pending.add(task)
                task.add_done_callback(pending.discard)
            await asyncio.gather(*pending)

    return recorder.run(run)


@asynccontextmanager
async def _clients(
    url: str, model: str, version: int | None, count: int
) -> AsyncIterator[list[AsyncTritonClient]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(AsyncTritonClient(url, model=model, version=version))
            for _ in range(count)
        ]


def _loop() -> asyncio.AbstractEventLoop:
    # epoll rounds waits up to whole milliseconds, select does not
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


@dataclass
class _Recorder:
    expected: Expected | None
    tolerance: float
    latency_ms: list[float] = field(default_factory=list)
    versions: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    wrong: int = 0

    async def send(
        self,
        client: AsyncTritonClient,
        x_NTF: NDArray[np.float32],
        index: int,
        since: float,
        deadline_s: float,
    ) -> None:
        self.requests += 1
        try:
            answer = await client.ask(x_NTF[index : index + 1], deadline_s=deadline_s)
        except ServingError as error:
            self.errors[error.what] += 1
            return
        self.latency_ms.append((time.perf_counter() - since) * 1e3)
        self.versions[answer.version] += 1
        if self.expected is not None:
            correct_NC = self.expected.get(answer.version)
            self.wrong += (
                correct_NC is None
                or not np.abs(answer.logits_BC[0] - correct_NC[index]).max() <= self.tolerance
            )

    def run(self, load: Callable[[], Coroutine[None, None, None]]) -> LoadResult:
        begin = time.perf_counter()
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(load())
        return LoadResult(
            latency_ms_R=np.array(self.latency_ms),
            requests=self.requests,
            failed=sum(self.errors.values()),
            wrong=self.wrong,
            seconds=time.perf_counter() - begin,
            versions=dict(self.versions),
            errors=dict(self.errors.most_common(SHOWN_ERRORS)),
        )
