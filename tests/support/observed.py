"""An observed service for tests: real windows and decisions, without a broker."""

import asyncio
from typing import Any

from infra.live.kafka.clients import Partition
from infra.live.monitoring.observer import Observer
from infra.live.monitoring.view import View
from infra.live.status import Status
from model_code.live.messages import Decision
from model_code.live.path import Asked, LivePath
from model_code.repository.route import Route, Target
from model_code.settings import MODEL_NAME
from tests.support.live import MS, NOON, path, quote, warm
from tests.support.market import SYMBOLS

STEP_NS = 300_000  # of the clock of the durations, at each call


class Desk:
    """A path, the observer of its decisions, and a clock that stands until it is moved."""

    def __init__(self, symbols: tuple[str, ...] = SYMBOLS) -> None:
        self.now_ns = NOON + 1_000 * MS
        self._ticks_ns = 0
        self.path: LivePath = path(symbols, clock=self._tick)
        self.observer = Observer(lambda: self.now_ns)
        self._next = {symbol: warm(self.path, symbol=symbol, count=63) for symbol in symbols}

    def _tick(self) -> int:
        self._ticks_ns += STEP_NS
        return self._ticks_ns

    def round(
        self, probability: float, symbols: tuple[str, ...] = SYMBOLS[:1], **answer: Any
    ) -> tuple[list[Decision], Asked]:
        """The next quote of each instrument, 2 ms old when the sink sees its decision."""
        for symbol in symbols:
            number = self._next[symbol]
            self._next[symbol] = number + 1
            at_ms = (self.now_ns - NOON) / MS - 2
            self.path.take(quote(number, at_ms, symbol), self.now_ns)
        asked = self.path.ready(self.now_ns)
        assert asked is not None
        p_B = [probability] * len(asked.waiting)
        return self.path.answer(asked, p_B, self.now_ns, **answer), asked

    def decide(self, probability: float, *symbols: str, **answer: Any) -> None:
        """Take the next quotes, decide, and let the observer see it."""
        decisions, asked = self.round(probability, symbols or SYMBOLS[:1], **answer)
        asyncio.run(self.observer.write(decisions, [asked]))

    def update(self, at_s: float, **values: Any) -> None:
        """Give the observer the path's ledger."""
        status = Status(ledger=_copy(self.path), waiting=self.path.waiting, **values)
        self.observer.update(status, at_s)

    def wait(self, ms: float) -> None:
        """Move the clock."""
        self.now_ns += round(ms * MS)

    def view(self, **options: Any) -> View:
        """What is shown of it."""
        return View(self.observer, clock=lambda: self.now_ns, **options)


def _copy(one: LivePath) -> Any:
    ledger = type(one.ledger)()
    ledger.add(one.ledger)
    return ledger


def busy() -> Desk:
    """Two instruments, three decisions, one of them true, and a lag of 5 messages."""
    desk = Desk()
    desk.update(0.0)
    desk.decide(0.25)
    desk.decide(0.75, flags=("fallback",))
    desk.wait(300)
    desk.decide(0.125, SYMBOLS[1], model_version=8, threshold=0.25)
    lag = {Partition("ticks", 0): 5, Partition("ticks", 1): -1}
    desk.update(1.0, lag=lag, unprocessed=3, unconfirmed=2, broker_error="")
    return desk


def route(version: int = 7) -> Route:
    """The version serves."""
    return Route(champion=Target(model=MODEL_NAME, version=version))
