"""A stream of ticks through real processes, and what must hold after a fault."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import msgspec

from flows.demos.live_rig import Process, Rig
from infra.live.kafka.producer import Outbox
from infra.live.load import Decisions
from infra.triton.key import control_key
from model_code.features.served import SOLO
from model_code.live.ledger import Ledger
from model_code.live.messages import Decision, Quote, Tick, encode
from model_code.live.path import LivePath
from model_code.live.read_back import ReadBack
from model_code.live.reasons import Column
from model_code.live.recorded import endless
from model_code.live.state import Group
from model_code.market.profiles import limits
from model_code.market.store import open_market
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, ValidationSpec
from tests.support.serving import APPROVAL, Names, staged

SYMBOLS = ("AAA.test", "BBB.test", "CCC.test", "DDD.test")
RATE = 200.0
TIMEOUT_S = 60.0
LAST_S = 20.0
Key = tuple[str, int, int]


class Mark(NamedTuple):
    """A moment in a stream: ns since the epoch, and the newest sequence number by symbol."""

    at_ns: int
    sequences: Mapping[str, int]


FIRST = Mark(0, {})


class Stream:
    """Ticks at a fixed rate, stamped with the moment each is due; the decisions are read back.

    Args:
        rig: its broker.
        session: of the feed handler.
    """

    def __init__(self, rig: Rig, session: int = 1) -> None:
        self._rig = rig
        store = open_market(rig.store)
        self._ticks = endless(store, store.catalog(), session)
        self._outbox = Outbox(rig.kafka)
        self.sent: list[Tick] = []
        self.back = ReadBack()
        self.newest: list[tuple[Decision, int]] = []
        """Each decision, and when it was read."""
        self.step_ns = 0
        """Added to the stamps; a clock that steps."""
        self.ahead = 0
        """Ticks whose stamps were ahead of the clock."""
        self.slow_s = 0.0
        """How long the reader takes for its next decision."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._reader = Decisions(rig.kafka, self._take)

    def __enter__(self) -> "Stream":
        self._reader.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._reader.__exit__()

    def stop(self) -> None:
        """Send no more; wait until the broker has confirmed all."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._thread.join()
            assert self._outbox.flush(TIMEOUT_S)

    def settle(self) -> None:
        """Wait until no more decisions come."""
        self._reader.settle()

    def await_last(self) -> None:
        """Wait until the newest quote of each instrument was decided, or no more decisions come."""
        last = {tick.symbol: tick for tick in self.sent if isinstance(tick, Quote)}
        until = time.monotonic() + LAST_S
        while time.monotonic() < until:
            keys = [(one.symbol, one.session, one.sequence) for one in last.values()]
            if all(key in self.back for key in keys):
                break
            time.sleep(0.02)
        self.settle()

    def raw(self, payload: bytes, key: bytes) -> None:
        """Send any bytes."""
        assert self._outbox.send(self._rig.kafka.ticks[0], key, payload)

    def mark(self) -> Mark:
        """Now, and the newest tick of each instrument that was sent."""
        return Mark(time.time_ns(), {tick.symbol: tick.sequence for tick in list(self.sent)})

    def recovered(
        self, since: Mark = FIRST, fits: Callable[[Decision], bool] = lambda _: True
    ) -> float:
        """Seconds until a decision on a tick sent after the mark was read."""
        until = time.monotonic() + TIMEOUT_S
        place = 0
        while time.monotonic() < until:
            for one, at_ns in self.newest[place:]:
                place += 1
                if one.sequence > since.sequences.get(one.symbol, 0) and fits(one):
                    return (at_ns - since.at_ns) / 1e9
            time.sleep(0.005)
        raise AssertionError("no decision: " + self._rig.services[-1].text[-2000:])

    def _take(self, one: Decision, at_ns: int) -> None:
        self.back.take(one)
        self.newest.append((one, at_ns))
        if self.slow_s:
            slow_s, self.slow_s = self.slow_s, 0.0
            time.sleep(slow_s)

    def _send(self) -> None:
        begun, topic = time.time(), self._rig.kafka.ticks[0]
        for number in count():
            due = begun + number / RATE
            while (wait := due - time.time()) > 0:
                time.sleep(wait)
            if self._stopping.is_set():
                return
            step_ns = self.step_ns
            stamp_ns = int(due * 1e9) + step_ns
            tick = msgspec.structs.replace(next(self._ticks), local_ns=stamp_ns)
            assert self._outbox.send(topic, tick.symbol.encode(), encode(tick))
            self._outbox.poll()
            self.sent.append(tick)
            self.ahead += step_ns > 0


def late(ticks: list[Tick], limit_ns: int) -> int:
    """Ticks whose stamp is before an earlier one of their instrument, as a path counts them.

    Args:
        ticks: in the order they were sent.
        limit_ns: ticks that are stamped later were dead-lettered.
    """
    newest: dict[str, int] = {}
    found = 0
    for tick in ticks:
        if tick.local_ns > limit_ns:
            continue
        found += tick.local_ns < newest.get(tick.symbol, 0)
        newest[tick.symbol] = max(newest.get(tick.symbol, 0), tick.local_ns)
    return found


@dataclass
class Faulted:
    """Services that read a stream to its end, and their ledgers together.

    Attributes:
        ledger: of all that ended with status 0.
        ended: services that ended so.
    """

    ledger: Ledger
    ended: int


def finish(stream: Stream, services: list[Process]) -> Faulted:
    """End the stream; wait until the services have taken it all; stop them."""
    stream.stop()
    stream.await_last()
    total = Ledger()
    for service in services:
        assert service.stop() == 0, service.text
        ledger = Ledger.parse(service.text)
        assert ledger.balanced(), ledger
        total.add(ledger)
    stream.settle()
    return Faulted(total, len(services))


def balanced(stream: Stream, done: Faulted, *, besides: int = 0) -> None:
    """Assert that every tick was taken once and every decision was read once, in order.

    Args:
        stream: that ended.
        done: its services.
        besides: messages that are not ticks of the stream.
    """
    assert done.ledger.taken == len(stream.sent) + besides
    assert done.ledger.columns[Column.DECIDED] == stream.back.decided
    assert (stream.back.duplicated, stream.back.reordered) == (0, 0)
    assert (done.ledger.lost, done.ledger.reordered, done.ledger.duplicated) == (0, 0, 0)


def every_decision(stream: Stream) -> None:
    """Assert that the decisions read back are those of a path that saw every tick once."""
    expected = expected_decisions(stream.sent)
    missing = [key for key in expected if key not in stream.back]
    assert not missing, f"{len(missing)} of {len(expected)}, for example {missing[:3]}"
    assert stream.back.decided == len(expected)
    assert stream.back.reordered == 0


def expected_decisions(ticks: list[Tick]) -> set[Key]:
    """Symbol, session and sequence of each window of an undisturbed path."""
    bounds = limits(ValidationSpec())
    paths = {
        symbol: LivePath(Group(SOLO, (symbol,), 10.0, bounds), threshold=0.5, model_version=1)
        for symbol in {tick.symbol for tick in ticks}
    }
    found: set[Key] = set()
    for tick in ticks:
        one = paths[tick.symbol]
        one.take(tick, tick.local_ns)
        while (asked := one.ready(tick.local_ns)) is not None:
            for decision in one.answer(asked, [0.1] * len(asked.waiting), tick.local_ns):
                found.add((decision.symbol, decision.session, decision.sequence))
    return found


class Versions:
    """Two versions, promoted and rolled back by the swap of a promotion."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._names = rig, Names()
        self.serving = ServingRepository(rig.settings.serving_repository)

    def swap(self, kind: str, version: int) -> None:
        """Let a version serve."""
        if version not in self.serving.known():
            folder = staged(self._rig.settings.staging_repository, version)
            self.serving.publish(folder, APPROVAL)
        with connected(self._rig) as client:
            Swap(self.serving, client, self._names).run(kind, version, None, "f")


def connected(rig: Rig) -> TritonClient:
    """A client of the rig's Triton, with the key."""
    return TritonClient(str(rig.settings.triton_url), control_key(rig.settings))


def reload_model(rig: Rig) -> None:
    """Load the model into a server that was started again, as an operator or the stack does."""
    with connected(rig) as client:
        client.load(MODEL_NAME)
