"""The newest decision and quote of each instrument in Redis, for other processes to read.

A write never raises because of Redis and waits for it at most `timeout_s`. While Redis is away the
newest value of each instrument is kept, and written after reconnection unless it is stale by then.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from infra.live.redis.fields import (
    SCRIPT,
    Item,
    MarketState,
    Part,
    decision_item,
    quote_item,
    state_key,
)
from infra.live.redis.spec import Counts, RedisSpec, failure, server_address
from infra.servers import ServerError
from model_code.live.messages import Decision

FAILURES = (RedisError, OSError)  # OSError includes TimeoutError
LONGEST_WAIT = 40  # first waits


class RedisState:
    """Writes decisions and quotes; for one event loop.

    Args:
        url: `redis://HOST:PORT/DATABASE`, with `rediss` for TLS.
        spec: keys, expiry and waits.
        password: if the URL has none.
        clock: ns since the epoch, the clock of `local_ns`.

    Raises:
        ConfigError: the URL cannot be read.
    """

    def __init__(
        self,
        url: str,
        spec: RedisSpec | None = None,
        *,
        password: SecretStr | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.address = server_address(url)
        self._url, self._password, self._clock = url, password, clock
        self._spec = spec or RedisSpec()
        self._client: Redis | None = None
        self._failed: list[Redis] = []
        self._sha = ""
        self._pending: dict[tuple[str, Part], Item] = {}
        self._lock = asyncio.Lock()
        self._reconnecting: asyncio.Task[None] | None = None
        self._closed = False
        self.counts = Counts()
        self.error: ServerError | None = None
        """Why Redis cannot be used now; None if it can."""
        self.refusal = ""
        """Of the newest refused decision or quote."""

    @property
    def waiting(self) -> int:
        """Decisions and quotes kept until Redis can be used."""
        return len(self._pending)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def check(self) -> None:
        """Connect now, for example at the start of a service.

        Raises:
            ServerError: Redis does not respond or refuses the password; reconnection goes on.
        """
        async with self._lock:
            try:
                async with asyncio.timeout(self._spec.timeout_s):
                    await (await self._open()).ping()
            except FAILURES as error:
                raise self._down(error) from error

    async def write(
        self, decisions: Sequence[Decision], quotes: Sequence[MarketState] = ()
    ) -> None:
        """Write the newest of each instrument in one round trip; `counts` says what became of them.

        Raises:
            ServerError: it was called after `close`.
        """
        if self._closed:
            raise ServerError(
                "a decision was written after close",
                where=self.address,
                remedy="close after the last write",
            )
        expire_ms = self._spec.expire_ms
        for item in (
            *(decision_item(one, expire_ms) for one in decisions),
            *(quote_item(one, expire_ms) for one in quotes),
        ):
            self.counts.taken += 1
            if item.fault:
                self._refuse(item, item.fault)
            else:
                self._keep(item)
        if self._reconnecting is not None:  # which writes what waits
            return
        async with self._lock:
            if self._pending and self._reconnecting is None:
                try:
                    await self._send()
                except FAILURES as error:
                    self._down(error)

    async def close(self) -> None:
        """Write what waits if Redis can be used, then disconnect."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
        async with self._lock:
            if self._pending and self.error is None:
                with suppress(*FAILURES):
                    await self._send()
            self.counts.stopped += len(self._pending)
            self._pending.clear()
            self._discard()
            await self._disconnect()

    def _keep(self, item: Item) -> None:
        """Keep the newer of an item and the one that waits."""
        slot = (item.symbol, item.part)
        waiting = self._pending.setdefault(slot, item)
        if waiting is item:
            return
        if item.order > waiting.order:
            self._pending[slot] = item
            self.counts.replaced += 1
        elif item.order == waiting.order:
            self.counts.duplicate += 1
        elif item.sent:
            self.counts.replaced += 1
        else:
            self.counts.late += 1

    async def _send(self) -> None:
        """Write what waits; on a failure it waits again."""
        unsent: list[Item] = []
        try:
            async with asyncio.timeout(self._spec.timeout_s):
                client = await self._open()
                now_ns = self._clock()
                unsent = [item for item in self._pending.values() if item.deadline_ns >= now_ns]
                self.counts.stale += len(self._pending) - len(unsent)
                self._pending.clear()
                while unsent:
                    unsent = await self._send_once(client, unsent, now_ns)
                    if unsent:
                        self._sha = await client.script_load(SCRIPT)
        except BaseException:  # a cancelled write too may have been half sent
            self._discard()
            for item in unsent:
                self._keep(item._replace(sent=True))
            raise

    async def _send_once(self, client: Redis, items: list[Item], now_ns: int) -> list[Item]:
        """Write items in one pipeline; return those for which the server lacked the script."""
        pipeline = client.pipeline(transaction=False)
        for item in items:
            key = state_key(self._spec.prefix, item.symbol)
            arguments = item.arguments(now_ns, self._spec.expire_ms)
            pipeline.execute_command("EVALSHA", self._sha, 1, key, *arguments)
        answers = await pipeline.execute(raise_on_error=False)
        moved = next((answer for answer in answers if isinstance(answer, ReadOnlyError)), None)
        if moved is not None:  # a replica since a failover: connect again
            raise moved
        lacking = []
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, NoScriptError):
                lacking.append(item)
            elif isinstance(answer, ResponseError):
                self._refuse(item, str(answer))
            elif answer == 1 or (answer == 0 and item.sent):
                self.counts.written += 1
            elif answer == 0:
                self.counts.duplicate += 1
            else:
                self.counts.late += 1
        return lacking

    def _refuse(self, item: Item, why: str) -> None:
        self.counts.refused += 1
        session, sequence = item.order
        self.refusal = f"{item.symbol!r} session {session} sequence {sequence}: {why}"

    async def _open(self) -> Redis:
        if self._client is None:
            await self._disconnect()
            timeout_s = self._spec.timeout_s
            secret = self._password
            self._client = Redis.from_url(
                self._url,
                password=secret.get_secret_value() if secret else None,
                decode_responses=True,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
            )
            self._sha = await self._client.script_load(SCRIPT)
        return self._client

    def _down(self, error: BaseException) -> ServerError:
        found = self._note(error)
        if self._reconnecting is None:
            self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())
        return found

    def _note(self, error: BaseException) -> ServerError:
        self.counts.failures += 1
        self._discard()
        self.error = failure(error, self.address)
        return self.error

    def _discard(self) -> None:
        """Set the client aside; closing it may take a while."""
        if self._client is not None:
            self._failed.append(self._client)
            self._client = None

    async def _disconnect(self) -> None:
        while self._failed:
            with suppress(*FAILURES):
                async with asyncio.timeout(self._spec.timeout_s):
                    await self._failed.pop().aclose()

    async def _reconnect(self) -> None:
        wait_s = self._spec.reconnect_s
        while True:
            async with self._lock:
                try:
                    await self._send()
                    while self._pending:  # passed to `write` meanwhile
                        await self._send()
                except Exception as error:  # another would end the reconnection for good
                    self._note(error)
                else:
                    self.error, self._reconnecting = None, None
                    self.counts.reconnections += 1
                    return
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT * self._spec.reconnect_s)
