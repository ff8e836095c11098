"""Predictions by callback for an engine without an event loop: `submit` returns at once.

Shapes: B batch, T = 64 steps, F = 16 features.
"""

import asyncio
import threading
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model_code.errors import ServingError
from model_code.serving import refusals, wire
from model_code.serving.aio import ATTEMPTS, DEADLINE_S, AsyncTritonClient, Callback
from model_code.serving.owner import Owner
from model_code.settings import MODEL_NAME


class CallbackPredictor:
    """`AsyncTritonClient` in a thread of its own; usable from several threads.

    Args:
        url: host:port of the server's gRPC endpoint; several in the order of preference.
        model: served name.
        version: pinned; None for the server's newest. A call may name another.
        attempts: maximum per request; 1: it is never sent again.
        most_in_flight: requests without a response; more are refused.

    Raises:
        ServingError: a bad address or number of attempts, or a forked process.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        model: str = MODEL_NAME,
        version: int | None = None,
        attempts: int = ATTEMPTS,
        most_in_flight: int = refusals.MOST_IN_FLIGHT,
    ) -> None:
        async def connect() -> AsyncTritonClient:
            return AsyncTritonClient(
                url, model=model, version=version, attempts=attempts, most_in_flight=most_in_flight
            )

        self.url = wire.shown(url)
        self._owner = Owner(self.url)
        self._most_in_flight, self._in_flight = most_in_flight, 0
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="tickline-predictor", daemon=True
        )
        self._thread.start()
        try:
            self._client = asyncio.run_coroutine_threadsafe(connect(), self._loop).result()
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        x_BTF: NDArray[np.float32],
        callback: Callback,
        *,
        version: int | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Send a request and return at once, whatever the server does.

        `callback` is called exactly once, with the response or the error. A refusal that needs no
        server (bad windows or deadline, too many requests in flight, closed, a forked process)
        calls back in the calling thread, before this returns. Everything else calls back in the
        predictor's thread, one after another: a slow callback delays the others and their
        deadlines.

        Args:
            x_BTF: raw feature windows (B, 64, 16) float32; copied.
            callback: short, and it must not call `close`. The first error it raises in the
                predictor's thread is raised by `close`.
            version: None for the predictor's.
            deadline_s: for all attempts together, above 0 and up to 60 s.
        """

        def answered(outcome: wire.Answer | ServingError) -> None:
            with self._lock:
                self._in_flight -= 1
            callback(outcome)

        try:
            self._owner.require()  # first: in a forked process the lock may be held for ever
            within_s = refusals.check(x_BTF, deadline_s)
            own_BTF = x_BTF.copy()
            with self._lock:
                self._owner.require()
                if self._in_flight >= self._most_in_flight:
                    raise refusals.too_many(self._most_in_flight, self.url)
                self._loop.call_soon_threadsafe(self._send, own_BTF, answered, version, within_s)
                self._in_flight += 1
        except ServingError as error:
            refusal = error
        else:
            return
        callback(refusal)

    def close(self) -> None:
        """Wait until every request is called back, then disconnect.

        A forked process has nothing to wait for: its parent is called back.

        Raises:
            ServingError: called by a callback.
        """
        if self._owner.is_elsewhere:
            return
        if threading.current_thread() is self._thread:
            raise ServingError(
                "close was called by a callback, which it would wait for",
                where=self.url,
                remedy="call it in another thread",
            )
        with self._lock:
            if self._owner.closed:
                return
            self._owner.closed = True
        try:
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        finally:
            self._stop()

    def _send(
        self,
        x_BTF: NDArray[np.float32],
        callback: Callback,
        version: int | None,
        deadline_s: float,
    ) -> None:
        self._client.submit(x_BTF, callback, version=version, deadline_s=deadline_s)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
