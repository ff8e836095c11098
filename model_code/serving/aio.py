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
from model_code.serving.owner import Owner
from model_code.settings import MODEL_NAME

DEADLINE_S = 5.0
ATTEMPTS = 8
FIRST_WAIT_S, LONGEST_WAIT_S = 0.01, 0.5

Callback = Callable[[wire.Answer | ServingError], None]


class AsyncTritonClient:
    """Connections to a Triton server, or to several with the same model, for one event loop.

    A request is sent again only if the server was unreachable or stopped, the model was not ready,
    its process died, its input type changed, or another request spoiled the batch; never if it was
    refused. The deadline covers all attempts together.

    The first event loop in which the client is used is the client's; other loops are refused, and
    so are forked processes.

    Of several servers the first is asked. If it is unreachable, takes more than half of the time
    left, or lacks the version, the request goes to the next one, and so do later requests until
    the first answers again.

    Args:
        url: host:port of the gRPC endpoint; several in the order of preference.
        model: served name.
        version: pinned; None for the server's newest. A call may name another.
        attempts: maximum per request; 1: it is never sent again.
        most_in_flight: submitted requests without a response; more are refused.

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
        self.url, self.model, self.version = wire.shown(url), model, version
        self._owner, self._urls = Owner(self.url), wire.urls(url)
        self._connections: Connections | None = None
        self._attempts = refusals.attempts(attempts)
        self._most_in_flight, self._in_flight = most_in_flight, 0
        self._submitted: set[asyncio.Task[wire.Answer]] = set()
        self._callback_error: Exception | None = None
        self.retried = 0

    @property
    def failovers(self) -> int:
        """Requests that one server failed and the next one got."""
        return 0 if self._connections is None else self._connections.failovers

    async def close(self) -> None:
        """Wait for the submitted requests, then close the connection.

        The first error that a callback raised is raised here. In a forked process, and after the
        client's event loop was closed, there is nothing to wait for.

        Raises:
            ServingError: the client belongs to another event loop.
        """
        if not (self._owner.is_elsewhere or self._owner.has_ended):
            self._owner.require_loop(asyncio.get_running_loop())
            self._owner.closed = True
            try:
                await asyncio.sleep(0)  # refusals are called back first
                await asyncio.gather(*self._submitted, return_exceptions=True)
            finally:
                if self._connections is not None:
                    await self._connections.close()
        self._owner.closed = True
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
            ServingError: bad windows, a bad deadline, a client that is closed or of another process
                or event loop, a refusal, no response in time, or an invalid response.
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
        windows, a bad deadline, too many requests in flight, a closed client, another event loop
        and a forked process are refusals. Without an event loop `callback` is called before this
        returns.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            refuse = refusals.forked if self._owner.is_elsewhere else refusals.no_loop
            callback(refuse(self.url))
            return
        try:
            self._owner.require(loop)
            if self._in_flight >= self._most_in_flight:
                raise refusals.too_many(self._most_in_flight, self.url)
            within_s = refusals.check(x_BTF, deadline_s)
        except ServingError as refusal:
            loop.call_soon(self._call_back, callback, refusal)
            return
        self._in_flight += 1
        task = loop.create_task(self._within(x_BTF.copy(), version, within_s))
        self._submitted.add(task)
        task.add_done_callback(partial(self._finish, callback))

    async def _within(
        self, x_BTF: NDArray[np.float32], version: int | None, deadline_s: float
    ) -> wire.Answer:
        """As `ask`, of a request taken; the deadline holds even if the connection does not."""
        try:
            async with asyncio.timeout(deadline_s):
                return await self._ask(x_BTF, version, deadline_s)
        except TimeoutError as error:
            raise self._missed(deadline_s) from error

    def _finish(self, callback: Callback, task: asyncio.Task[wire.Answer]) -> None:
        """Call back; also if the task was cancelled, even before it began."""
        self._in_flight -= 1
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
        self._call_back(callback, outcome)

    def _call_back(self, callback: Callback, outcome: wire.Answer | ServingError) -> None:
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
        self._owner.require(asyncio.get_running_loop())
        return await self._ask(x_BTF, version, refusals.seconds(deadline_s))

    async def _ask(
        self, x_BTF: NDArray[np.float32], version: int | None, deadline_s: float
    ) -> wire.Answer:
        end = asyncio.get_running_loop().time() + deadline_s
        try:
            return await self._attempt(x_BTF, self.version if version is None else version, end)
        except grpc.RpcError as error:
            raise wire.refusal(error, self.url, f"request to model {self.model} failed") from error
        except TimeoutError as error:
            raise self._missed(deadline_s) from error
        except (asyncio.CancelledError, grpc.aio.UsageError):
            task = asyncio.current_task()
            if not self._owner.closed or (task is not None and task.cancelling()):
                raise
            raise refusals.closed(self.url) from None

    async def _attempt(
        self, x_BTF: NDArray[np.float32], version: int | None, end: float
    ) -> wire.Answer:
        """Send the request, and again while that may help."""
        try:
            return await self._infer(x_BTF, version, end)
        except grpc.RpcError as error:
            if self._attempts == 1 or not self._helps(error):
                raise
        async with asyncio.timeout_at(end):
            async for attempt in self._retries():
                with attempt:
                    self.retried += 1
                    return await self._infer(x_BTF, version, end)
        raise AssertionError("the attempts end with a response or an error")

    def _retries(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception(self._helps),
            stop=stop_after_attempt(self._attempts - 1),
            wait=wait_exponential(FIRST_WAIT_S, LONGEST_WAIT_S) + wait_random(0, FIRST_WAIT_S),
            reraise=True,
        )

    def _helps(self, error: BaseException) -> bool:
        """Whether the request may be answered if it is sent again."""
        if not isinstance(error, grpc.RpcError):
            return False
        # cancelled by a server that stops; the caller's own cancellation is no RpcError
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return True
        if wire.is_spoiled(error) or wire.is_dead(error):
            return True
        # a version of another input type may serve since the type was cached
        return error.code() == grpc.StatusCode.INVALID_ARGUMENT and self._drop_dtypes(error)

    def _drop_dtypes(self, error: grpc.RpcError) -> bool:
        known = self._servers.drop_dtypes()
        return "data-type" in (error.details() or "") and known

    @property
    def _servers(self) -> Connections:
        """The connections; opened in the client's event loop, whose they are."""
        if self._connections is None:
            self._connections = Connections(self._urls, self.model)
        return self._connections

    async def _infer(
        self, x_BTF: NDArray[np.float32], version: int | None, end: float
    ) -> wire.Answer:
        return await self._servers.infer(x_BTF, version, end)
