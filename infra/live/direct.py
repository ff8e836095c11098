"""Ticks to decisions in one process: no broker in front of them, no event loop between them.

    tick -> path of its group -> engine -> decisions -> recorder

A WebSocket feed or an embedding engine hands ticks over with `take`; `decide` asks the engine about
all windows that wait. What is recorded to Kafka waits in memory until `Recorder.serve`, which comes
after the decision: a broker that is slow or away never delays one.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from infra.live.kafka.producer import Outbox
from infra.live.outputs import batches, ready
from model_code.engines.protocol import Predictor
from model_code.errors import StreamError
from model_code.live.ledger import Ledger
from model_code.live.messages import Decision, Tick, encode
from model_code.live.path import Asked, LivePath
from model_code.live.reasons import Reason
from model_code.models.probability import probability

MOST_UNRECORDED = 200_000
AT_ONCE = 200  # messages in one call of `serve`: about a millisecond


class Recorder:
    """Ticks and decisions for Kafka, published between decisions.

    Args:
        outbox: the producer.
        ticks, decisions: topics.
        keys: key of each instrument's group.
        most: messages that wait for the producer; further ones are dropped.

    Attributes:
        recorded: messages given to the producer.
        dropped: messages dropped, because too many waited or the producer refuses them.
    """

    def __init__(
        self,
        outbox: Outbox,
        ticks: str,
        decisions: str,
        keys: Mapping[str, str],
        most: int = MOST_UNRECORDED,
    ) -> None:
        self._outbox, self._ticks, self._decisions, self._most = outbox, ticks, decisions, most
        self._keys = {symbol: key.encode() for symbol, key in keys.items()}
        self._waiting: deque[Tick | Decision] = deque()
        self.recorded = self.dropped = 0

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._waiting)

    def keep(self, message: Tick | Decision) -> None:
        """Record a message later."""
        if len(self._waiting) < self._most:
            self._waiting.append(message)
        else:
            self.dropped += 1

    def serve(self, most: int = AT_ONCE) -> None:
        """Hand some messages to the producer, as far as it takes them."""
        with suppress(StreamError):  # not delivered; `Outbox` does not count it as delivered
            self._outbox.poll()
        for _ in range(min(most, len(self._waiting))):
            message = self._waiting[0]
            if isinstance(message, Decision):
                topic, key = self._decisions, message.symbol.encode()
            else:
                topic, key = self._ticks, self._keys.get(message.symbol, b"")
            try:
                taken = self._outbox.send(topic, key, encode(message))
            except StreamError:  # refused, for example after a fatal error; decisions go on
                self.dropped += 1
            else:
                if not taken:
                    return
                self.recorded += 1
            self._waiting.popleft()


class Direct:
    """Paths and engine of one process; a receiver of ticks.

    Call it from one thread.

    Args:
        groups: instruments by the group's key, from `model_code.live.groups`.
        make_path: a fresh path of these instruments.
        predictor: the engine of a version.
        decided: called with the decisions, and all windows that were asked about.
        say: called with each line for the log.
        recorder: None: nothing is recorded.
        defer: calls a function soon, for example `loop.call_soon`: ticks that have arrived
            together are then taken before the engine is asked. None: the caller calls `decide`.
        clock: ns since the epoch.
    """

    def __init__(
        self,
        groups: Mapping[str, tuple[str, ...]],
        make_path: Callable[[tuple[str, ...]], LivePath],
        predictor: Predictor,
        decided: Callable[[Sequence[Decision], Sequence[Asked]], None],
        say: Callable[[str], None],
        *,
        recorder: Recorder | None = None,
        defer: Callable[[Callable[[], object]], object] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._paths = [make_path(symbols) for symbols in groups.values()]
        self._path = {name: path for path in self._paths for name in path.group.instruments}
        self._predictor, self._decided, self._say = predictor, decided, say
        self._recorder, self._defer, self._clock = recorder, defer, clock
        self._due = False
        self._unknown = Ledger()
        self.failures = 0
        """How often the engine did not answer."""

    @property
    def ledger(self) -> Ledger:
        """Of all ticks."""
        total = Ledger()
        for one in (self._unknown, *(path.ledger for path in self._paths)):
            total.add(one)
        return total

    @property
    def waiting(self) -> int:
        """Windows that wait for `decide`."""
        return sum(path.waiting for path in self._paths)

    def take(self, tick: Tick, decode_ns: int = 0) -> None:
        """Take the next tick, in its order."""
        path = self._path.get(tick.symbol)
        if path is None:
            self._unknown.taken += 1
            self._unknown.end(Reason.UNKNOWN_SYMBOL)
        else:
            path.take(tick, self._clock(), decode_ns)
        if self._recorder is not None:
            self._recorder.keep(tick)
        if self._defer is not None and not self._due:
            self._due = True
            self._defer(self.decide)

    def decide(self) -> list[Decision]:
        """Ask the engine about all windows that wait; their decisions."""
        self._due = False
        now_ns = self._clock()
        windows = [found for path in self._paths for found in ready(path, now_ns)]
        decisions: list[Decision] = []
        for batch in batches(windows):
            asked = [one.x_BTF for _, one in batch]
            x_BTF = asked[0] if len(asked) == 1 else np.concatenate(asked)
            try:
                probability_B = probability(self._predictor.predict(x_BTF))
            except Exception as error:  # of whatever library answers; the windows are counted
                if not self.failures:
                    self._say(f"the engine did not answer: {error}; later failures are counted")
                self.failures += 1
                for path, one in batch:
                    path.fail(one)
                continue
            now_ns, first = self._clock(), 0
            for path, one in batch:
                last = first + len(one.waiting)
                decisions += path.answer(
                    one, probability_B[first:last], now_ns, flags=("in-process",)
                )
                first = last
        if windows:
            self._decided(decisions, [one for _, one in windows])
        if self._recorder is not None:
            for decision in decisions:
                self._recorder.keep(decision)
        return decisions

    def stop(self) -> None:
        """Decide what waits; afterwards the ledger balances."""
        self.decide()
        for path in self._paths:
            path.stop()
