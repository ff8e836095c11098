"""The model server's asynchronous client: deadlines, bounded retries, callbacks, pinned versions.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from model_code.errors import ServingError
from model_code.serving import refusals, wire
from model_code.serving.connections import Connections
from model_code.settings import MODEL_NAME

DEADLINE_S = 5.0
ATTEMPTS = 8
FIRST_WAIT_S, LONGEST_WAIT_S = 0.01, 0.5

Callback = Callable[[wire.Answer | ServingError], None]


class AsyncTritonClient:
    """Connections to a Triton server, or to several with the same model, for one event loop.

    A request is retried only if the server was unreachable or the model was not ready, never if it
    was refused. The deadline covers all attempts together.

    Of several servers the first is asked. If it is unreachable, takes more than half of the time
    left, or lacks the version, the request goes to the next one, and so do later requests until
    the first answers again.

    Args:
        url: host:port of the gRPC endpoint; several in the order of preference.
        model: served name.
        version: pinned; None for the server's newest. A call may name another.
        attempts: maximum per request.
        most_in_flight: submitted requests without a response; more are refused.
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
        self.url, self.model, self.version = wire.shown(url), model, version
        self._servers = Connections(wire.urls(url), model)
        self._attempts = attempts
        self._most_in_flight, self._in_flight = most_in_flight, 0
        self._submitted: set[asyncio.Task[wire.Answer]] = set()
        self._closed = False
        self._callback_error: Exception | None = None
        self.retried = 0

    @property
    def failovers(self) -> int:
        """Requests that one server failed and the next one got."""
        return self._servers.failovers

    async def close(self) -> None:
        """Wait for the submitted requests, then close the connection.

        The first error that a callback raised is raised here.
        """
        self._closed = True
        try:
            await asyncio.gather(*self._submitted, return_exceptions=True)
        finally:
            await self._servers.close()
        error, self._callback_error = self._callback_error, None
        if error is not None:
            raise error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def predict(
        self,
        x_BTF: NDArray[np.float32],
        *,
        version: int | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> NDArray[np.float32]:
        """Logits (B, 2) float32 of raw feature windows (B, 64, 16) float32.

        Raises:
            ServingError: bad windows, a refusal, no response in time, or an invalid response.
        """
        return (await self.ask(x_BTF, version=version, deadline_s=deadline_s)).logits_BC

    def submit(
        self,
        x_BTF: NDArray[np.float32],
        callback: Callback,
        *,
        version: int | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Send a request without waiting.

        The windows are copied. `callback` is called exactly once, in the event loop after this
        returns: with the response, or with the refusal, the missed deadline or the failure. Bad
        windows, a bad deadline, too many requests in flight and a closed client are refusals.
        """

        async def refuse(error: ServingError) -> wire.Answer:
            raise error

        loop, refusal = asyncio.get_running_loop(), self._refusal_of(x_BTF, deadline_s)
        if refusal is None:
            self._in_flight += 1
            task = loop.create_task(self._within(x_BTF.copy(), version, deadline_s))
            task.add_done_callback(self._leave)
        else:
            task = loop.create_task(refuse(refusal))
        self._submitted.add(task)
        task.add_done_callback(partial(self._finish, callback))

    def _refusal_of(self, x_BTF: object, deadline_s: object) -> ServingError | None:
        if self._closed:
            return refusals.closed(self.url)
        if self._in_flight >= self._most_in_flight:
            return refusals.too_many(self._most_in_flight, self.url)
        try:
            refusals.check(x_BTF, deadline_s)
        except ServingError as error:
            return error
        return None

    async def _within(
        self, x_BTF: NDArray[np.float32], version: int | None, deadline_s: float
    ) -> wire.Answer:
        """As `ask`; the deadline holds even if the connection does not keep it."""
        try:
            async with asyncio.timeout(deadline_s):
                return await self.ask(x_BTF, version=version, deadline_s=deadline_s)
        except TimeoutError as error:
            raise self._missed(deadline_s) from error

    def _leave(self, _: asyncio.Task[wire.Answer]) -> None:
        self._in_flight -= 1

    def _finish(self, callback: Callback, task: asyncio.Task[wire.Answer]) -> None:
        """Call back; also if the task was cancelled, even before it began."""
        self._submitted.discard(task)
        outcome: wire.Answer | ServingError
        if task.cancelled():
            outcome = ServingError("the request was cancelled", where=self.url)
        elif (error := task.exception()) is None:
            outcome = task.result()
        elif isinstance(error, ServingError):
            outcome = error
        else:
            outcome = ServingError(f"the request failed: {error!r}", where=self.url)
            outcome.__cause__ = error
        try:
            callback(outcome)
        except Exception as raised:  # the caller's; other requests must still be answered
            self._callback_error = self._callback_error or raised

    def _missed(self, deadline_s: float) -> ServingError:
        return wire.LateError(
            f"model {self.model} did not respond within {deadline_s:g} s",
            where=self.url,
            remedy="is the server running? tickline triton status",
        )

    async def ask(
        self,
        x_BTF: NDArray[np.float32],
        *,
        version: int | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> wire.Answer:
        """As `predict`, with the version that responded.

        Raises:
            ServingError: as `predict`.
        """
        pinned = self.version if version is None else version
        end = asyncio.get_running_loop().time() + deadline_s
        try:
            return await self._infer(x_BTF, pinned, end)
        except grpc.RpcError as error:
            if not self._retryable(error):
                raise self._refusal(error) from error
        try:
            async with asyncio.timeout_at(end):
                async for attempt in self._retries():
                    with attempt:
                        self.retried += 1
                        return await self._infer(x_BTF, pinned, end)
        except grpc.RpcError as error:
            raise self._refusal(error) from error
        except TimeoutError as error:
            raise self._missed(deadline_s) from error
        raise AssertionError("the attempts end with a response or an error")

    def _retries(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception(self._retryable),
            stop=stop_after_attempt(self._attempts - 1),
            wait=wait_exponential(FIRST_WAIT_S, LONGEST_WAIT_S) + wait_random(0, FIRST_WAIT_S),
            reraise=True,
        )

    def _retryable(self, error: BaseException) -> bool:
        if not isinstance(error, grpc.RpcError):
            return False
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return True
        # a version of another input type may serve since the type was cached
        return error.code() == grpc.StatusCode.INVALID_ARGUMENT and self._drop_dtypes(error)

    def _drop_dtypes(self, error: grpc.RpcError) -> bool:
        known = self._servers.drop_dtypes()
        return "data-type" in (error.details() or "") and known

    async def _infer(
        self, x_BTF: NDArray[np.float32], version: int | None, end: float
    ) -> wire.Answer:
        return await self._servers.infer(x_BTF, version, end)

    def _refusal(self, error: grpc.RpcError) -> ServingError:
        return wire.refusal(error, self.url, f"request to model {self.model} failed")
