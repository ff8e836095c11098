"""Decisions and quotes to Redis, beside the service: a round never waits for Redis."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from infra.live.redis.fields import MarketState, market_states
from infra.live.redis.state import RedisState
from infra.servers import ServerError
from model_code.live.messages import Decision
from model_code.live.path import Asked
from model_code.settings import FeatureSetName


class RedisSink:
    """A sink of `Service`; use it as a context in the service's event loop.

    The newest decision and quote of each instrument wait while an earlier write is under way.

    Args:
        state: writes them; closed at the end.
        feature_set: of the version.
        say: called with a line when Redis goes away or returns.

    Attributes:
        replaced: decisions and quotes that a newer one replaced before they were written.
    """

    def __init__(
        self, state: RedisState, feature_set: FeatureSetName, say: Callable[[str], None]
    ) -> None:
        self._state, self._feature_set, self._say = state, feature_set, say
        self._decisions: dict[str, Decision] = {}
        self._quotes: dict[str, MarketState] = {}
        self._wake = asyncio.Event()
        self._away = False
        self.replaced = 0

    async def __aenter__(self) -> Self:
        with suppress(ServerError):  # `_report` says it
            await self._state.check()
        self._report()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._flush()
        await self._state.close()

    @property
    def state(self) -> str:
        """The counts in one line."""
        counts = self._state.counts
        found = {"written": counts.written, "replaced": counts.replaced + self.replaced}
        found |= {"stale": counts.stale, "refused": counts.refused, "failures": counts.failures}
        parts = [f"{name} {count:,}" for name, count in found.items() if count]
        return f"Redis: {', '.join(parts) or 'nothing to write'}"

    async def write(self, decisions: Sequence[Decision], asked: Sequence[Asked]) -> None:
        """Keep the newest of each instrument; returns at once."""
        for one in decisions:
            self.replaced += one.symbol in self._decisions
            self._decisions[one.symbol] = one
        for found in asked:
            for quote in market_states(found, self._feature_set):
                self.replaced += quote.symbol in self._quotes
                self._quotes[quote.symbol] = quote
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._flush()
            except Exception as error:  # not Redis: the next decisions must still be written
                self._say(f"decisions were not written to Redis: {error!r}")
            self._report()

    async def _flush(self) -> None:
        decisions, self._decisions = list(self._decisions.values()), {}
        quotes, self._quotes = list(self._quotes.values()), {}
        if decisions or quotes:
            await self._state.write(decisions, quotes)

    def _report(self) -> None:
        error = self._state.error
        if (error is not None) != self._away:
            self._away = error is not None
            where = self._state.address
            self._say(f"Redis at {where} is back" if error is None else f"{error.what} ({where})")
