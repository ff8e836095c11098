"""The synchronous core of the live path, for a service and for an engine that embeds it.

    bytes -> messages -> order -> fold -> validity -> features -> window -> slot -> decision

`take` one message after another, `ready` for the windows to ask the model about, `answer` with its
probabilities. There are no sockets, no threads and no clock: the caller passes the time.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_code.errors import ConfigError
from model_code.live.fold import Row
from model_code.live.ledger import Ledger
from model_code.live.messages import (
    DeadLetter,
    Decision,
    Latency,
    MessageError,
    Quote,
    Tick,
    decode,
    encode,
)
from model_code.live.reasons import Column, Reason
from model_code.live.slots import Slots, Waiting
from model_code.live.state import Group
from model_code.settings import MAX_BATCH_SIZE
from model_code.training.threshold import decide

AHEAD_NS = 1_000_000_000
Flag = Literal["fallback", "in-process"]
Side = Literal["buy", "sell"]
Watch = Callable[[Quote, Row, bool], None]


class Outcome(NamedTuple):
    """A message that ended without a decision.

    Attributes:
        column: of the ledger.
        reason: None for a used trade and for a window that a newer one replaced.
        symbol: empty if the message cannot be read.
        sequence: of the message.
        letter: to put aside; None unless it is dead-lettered.
    """

    column: Column
    reason: Reason | None
    symbol: str
    sequence: int
    letter: DeadLetter | None = None


@dataclass(frozen=True)
class Asked:
    """Windows on their way to the model.

    Attributes:
        waiting: what each window ends on.
        x_BTF: float32, a copy.
        at_ns: when they were taken, on the clock of the durations.
    """

    waiting: tuple[Waiting, ...]
    x_BTF: NDArray[np.float32]
    at_ns: int


class LivePath:
    """From messages to decisions, for the instruments of one group.

    Args:
        group: the instruments' state.
        threshold: probability from which a decision is true.
        model_version: written to decisions unless `answer` names another.
        stale_after_ns: a decision later than this after its tick's local stamp is suppressed;
            None: never.
        ahead_ns: how far a stamp may be ahead of the caller's time.
        clock: for durations, in ns; None: every duration is 0.
        side: to open, where the label has a direction.
        watch: called with each valid row, its quote, and whether it begins a segment; before the
            features' window is asked about.
    """

    def __init__(
        self,
        group: Group,
        *,
        threshold: float,
        model_version: int,
        stale_after_ns: int | None = None,
        ahead_ns: int = AHEAD_NS,
        clock: Callable[[], int] | None = None,
        side: Side | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.group, self.threshold, self.model_version = group, threshold, model_version
        self.ledger = Ledger()
        self._stale_after_ns, self._ahead_ns, self._side = stale_after_ns, ahead_ns, side
        self._clock = clock or (lambda: 0)
        self._watch = watch
        self._slots = Slots()
        self._asked = 0
        self._newest_ns = 0
        self.overtaken = 0
        """Rows behind a row of another instrument, which therefore could not see them."""

    @property
    def waiting(self) -> int:
        """Windows in slots and at the model."""
        return len(self._slots) + self._asked

    def take(self, message: bytes | Tick, now_ns: int, decode_ns: int = 0) -> list[Outcome]:
        """Take the next message, in the order of arrival.

        Args:
            message: as received, or already decoded.
            now_ns: the receiver's clock when it was received, ns since the epoch.
            decode_ns: what reading a tick took that comes decoded.

        Returns:
            The messages that ended here without a decision: this one, or one that it replaced.
        """
        begun = self._clock()
        if not isinstance(message, bytes):
            return self._tick(message, now_ns, begun, decode_ns)
        try:
            ticks = decode(message)
        except MessageError as error:
            self.ledger.taken += 1
            self.ledger.end(error.reason)
            letter = DeadLetter(
                reason=error.reason, detail=error.detail, at_ns=now_ns, payload=message
            )
            return [Outcome(Column.DEAD_LETTERED, error.reason, "", 0, letter)]
        decode_ns = self._clock() - begun
        return [
            outcome
            for tick in ticks
            for outcome in self._tick(tick, now_ns, self._clock(), decode_ns)
        ]

    def ready(self, now_ns: int, most: int = MAX_BATCH_SIZE) -> Asked | None:
        """Up to `most` windows to ask the model about; None if none waits.

        A window that is not finite counts as a failure: no model takes a batch with it.
        `answer` or `fail` must follow for each result.
        """
        while len(self._slots):
            waiting = self._slots.take(most)
            if self._stale_after_ns is not None:
                stale_B = [self._stale(one, now_ns) for one in waiting]
                waiting = self._without(waiting, stale_B, Reason.STALE)
            if not waiting:
                continue
            x_BTF = np.empty((len(waiting), *waiting[0].window_TF.shape), np.float32)
            for place, one in enumerate(waiting):
                x_BTF[place] = one.window_TF
            if not np.isfinite(x_BTF).all():
                broken_B = [not np.isfinite(x_TF).all() for x_TF in x_BTF]
                waiting = self._without(waiting, broken_B, Reason.INFERENCE_FAILED)
                x_BTF = x_BTF[~np.array(broken_B)]
            if waiting:
                self._asked += len(waiting)
                return Asked(tuple(waiting), x_BTF, self._clock())
        return None

    def answer(
        self,
        asked: Asked,
        probability_B: Sequence[float] | NDArray[np.floating],
        now_ns: int,
        *,
        model_version: int | None = None,
        threshold: float | None = None,
        flags: tuple[Flag, ...] = (),
    ) -> list[Decision]:
        """Decisions from the model's probabilities; stale ones are suppressed.

        Args:
            asked: what `ready` returned.
            probability_B: of an opportunity; one that is not a number counts as a failure.
            now_ns: the receiver's clock.
            model_version: that answered, with its threshold; None: the path's.
            threshold: of that version.
            flags: of these decisions.

        Raises:
            ConfigError: another number of probabilities than windows.
        """
        if len(probability_B) != len(asked.waiting):
            raise ConfigError(
                f"{len(probability_B)} probabilities for {len(asked.waiting)} windows",
                remedy="answer every window of the batch, in its order",
            )
        answered = self._clock()
        limit = self.threshold if threshold is None else threshold
        p_B = np.asarray(probability_B, np.float64)
        yes_B = decide(p_B, limit)
        self._asked -= len(asked.waiting)
        decisions = []
        for one, p, yes in zip(asked.waiting, p_B.tolist(), yes_B.tolist(), strict=True):
            if self._stale(one, now_ns):
                self.ledger.end(Reason.STALE)
                continue
            if not 0.0 <= p <= 1.0:
                self.ledger.end(Reason.INFERENCE_FAILED)
                continue
            quote, late_ns = one.quote, self._stale_after_ns
            latency = Latency(
                decode=one.decode_ns,
                features=one.features_ns,
                queue=asked.at_ns - one.since_ns,
                inference=answered - asked.at_ns,
                publish=self._clock() - answered,
            )
            decisions.append(
                Decision(
                    symbol=quote.symbol,
                    sequence=quote.sequence,
                    session=quote.session,
                    exchange_ns=quote.exchange_ns,
                    local_ns=quote.local_ns,
                    model_version=self.model_version if model_version is None else model_version,
                    probability=p,
                    threshold=limit,
                    decision=yes,
                    side=self._side,
                    latency=latency,
                    received_ns=one.received_ns,
                    decided_ns=now_ns,
                    deadline_ns=None if late_ns is None else quote.local_ns + late_ns,
                    flags=flags,
                )
            )
        self.ledger.columns[Column.DECIDED] += len(decisions)
        return decisions

    def fail(self, asked: Asked) -> None:
        """Suppress windows that the model did not answer."""
        self._asked -= len(asked.waiting)
        for _ in asked.waiting:
            self.ledger.end(Reason.INFERENCE_FAILED)

    def stop(self) -> None:
        """Suppress the windows that still wait; afterwards the ledger balances."""
        for _ in self._slots.take(len(self._slots)):
            self.ledger.end(Reason.STOPPED)

    def _tick(self, tick: Tick, now_ns: int, begun: int, decode_ns: int) -> list[Outcome]:
        self.ledger.taken += 1
        instrument = self.group.instruments.get(tick.symbol)
        if instrument is None:
            return [self._end(tick, Reason.UNKNOWN_SYMBOL, now_ns)]
        found = instrument.order.check(tick, now_ns, self._ahead_ns)
        self.ledger.lost += found.lost
        outcomes = []
        if found.reset:
            outcomes += self._conflate(tick.symbol)
            instrument.features.reset()
        row = found.reason or instrument.row(tick)
        if row is None:
            self.ledger.columns[Column.TRADES] += 1
            outcomes.append(Outcome(Column.TRADES, None, tick.symbol, tick.sequence))
        elif isinstance(row, Reason):
            outcomes.append(self._end(tick, row, now_ns))
        else:
            outcomes += self._conflate(tick.symbol)  # the update overwrites the waiting window
            self.overtaken += row.timestamp < self._newest_ns
            self._newest_ns = max(self._newest_ns, row.timestamp)
            instrument.features.update(*row)
            assert isinstance(tick, Quote)  # noqa: S101 (a trade makes no row)
            if self._watch is not None:
                self._watch(tick, row, instrument.features.begins)
            if instrument.features.ready:
                at, window_TF = self._clock(), instrument.features.window_TF()
                self._slots.put(Waiting(tick, window_TF, decode_ns, at - begun, at, row, now_ns))
            else:
                outcomes.append(self._end(tick, Reason.WARMING, now_ns))
        return outcomes

    def _without(
        self, waiting: Sequence[Waiting], out_B: Sequence[bool], reason: Reason
    ) -> list[Waiting]:
        """The windows that are not out; the others end here."""
        for _ in range(sum(out_B)):
            self.ledger.end(reason)
        return [one for one, out in zip(waiting, out_B, strict=True) if not out]

    def _conflate(self, symbol: str) -> list[Outcome]:
        replaced = self._slots.drop(symbol)
        if replaced is None:
            return []
        self.ledger.columns[Column.CONFLATED] += 1
        return [Outcome(Column.CONFLATED, None, symbol, replaced.quote.sequence)]

    def _end(self, tick: Tick, reason: Reason, now_ns: int) -> Outcome:
        column = self.ledger.end(reason)
        letter = None
        if column is Column.DEAD_LETTERED:
            letter = DeadLetter(reason=reason, detail=str(tick), at_ns=now_ns, payload=encode(tick))
        return Outcome(column, reason, tick.symbol, tick.sequence, letter)

    def _stale(self, one: Waiting, now_ns: int) -> bool:
        limit = self._stale_after_ns
        return limit is not None and now_ns > one.quote.local_ns + limit
