"""Clients that ask at a steady rate and compare every answer with the engine's own.

Shapes: N windows, T = 64 steps, F = 16 features, C = 2 classes.
"""

import asyncio
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model_code.errors import ServingError
from model_code.serving.aio import AsyncTritonClient

CLIENTS = 8
ATTEMPTS = 1000  # the deadline ends them
DEADLINE_S = 30.0
TOLERANCE = 1e-4


@dataclass
class Seen:
    """What the clients saw in a while.

    Attributes:
        answered: requests.
        wrong: answers that differ from the engine's.
        errors: failed requests by reason.
        gap_s: the longest time without an answer.
    """

    answered: int = 0
    wrong: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    gap_s: float = 0.0

    @property
    def failed(self) -> int:
        """Requests without an answer."""
        return self.errors.total()

    @property
    def requests(self) -> int:
        """Requests that ended."""
        return self.answered + self.failed


class SoundClients:
    """Eight clients in a thread of their own, for a block; at its end all requests have ended.

    Args:
        url: host:port of the server's gRPC endpoint.
        version: asked.
        x_NTF: windows, asked one at a time, in turn.
        expected_NC: the engine's logits.
        rate_hz: requests a second of each client, evenly spaced, whatever is answered.
    """

    def __init__(
        self,
        url: str,
        version: int,
        x_NTF: NDArray[np.float32],
        expected_NC: NDArray[np.float32],
        rate_hz: float,
    ) -> None:
        self._url, self._version, self._rate_hz = url, version, rate_hz
        self._x_NTF, self._expected_NC = x_NTF, expected_NC
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._seen, self.total, self._last = Seen(), Seen(), time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.take()

    def take(self) -> Seen:
        """What was seen since the last call, also when no answer has come for a while."""
        with self._lock:
            now = time.monotonic()
            found, self._seen = self._seen, Seen()
            found.gap_s = max(found.gap_s, now - self._last)
            self.total.answered += found.answered
            self.total.wrong += found.wrong
            self.total.errors += found.errors
            return found

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    AsyncTritonClient(self._url, version=self._version, attempts=ATTEMPTS)
                )
                for _ in range(CLIENTS)
            ]
            with self._lock:
                self._last = time.monotonic()
            await asyncio.gather(*(self._steady(*one) for one in enumerate(clients)))

    async def _steady(self, number: int, client: AsyncTritonClient) -> None:
        pending: set[asyncio.Task[None]] = set()
        due = time.monotonic() + number / CLIENTS / self._rate_hz
        while not self._stop.is_set():
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.create_task(self._ask(client, number))
            pending.add(task)
            task.add_done_callback(pending.discard)
            number += CLIENTS
            due += 1 / self._rate_hz
        await asyncio.gather(*pending)

    async def _ask(self, client: AsyncTritonClient, number: int) -> None:
        index = number % len(self._x_NTF)
        try:
            answer = await client.ask(self._x_NTF[index : index + 1], deadline_s=DEADLINE_S)
        except ServingError as error:
            with self._lock:
                self._seen.errors[error.what] += 1
            return
        gap = np.abs(answer.logits_BC[0] - self._expected_NC[index]).max()
        with self._lock:
            now = time.monotonic()
            self._seen.answered += 1
            self._seen.wrong += not gap <= TOLERANCE
            self._seen.gap_s = max(self._seen.gap_s, now - self._last)
            self._last = now
