"""The order of one instrument's messages: gaps, duplicates, late ones, a clock that is wrong.

Nothing is sorted in. A message behind a later one is left out and counted; a gap says that the
instrument's window must fill again.
"""

from typing import NamedTuple

import msgspec

from model_code.live.messages import Quote, Tick
from model_code.live.reasons import Reason

GAPS = 64  # of which it is known whether a message behind them is late or a duplicate
LONG_AGO = -(2**63)


class Found(NamedTuple):
    """What the order says of a message.

    Attributes:
        reason: to leave it out; None if it is in order.
        lost: change of the number of lost messages: those skipped, or -1 for one that came late.
        reset: something before this message was missed.
    """

    reason: Reason | None
    lost: int
    reset: bool


IN_ORDER = Found(None, 0, False)


class Order(msgspec.Struct):
    """What was received of one instrument; `check` takes its messages in the order of arrival.

    Attributes:
        session: of the feed handler; -1 before the first message.
        expected: next sequence number.
        gaps: numbers (first, last) that did not come, oldest first.
        quote_ns: stamp of the newest quote in order.
        quote_number: its `source_sequence`.
        trade_ns: stamp of the newest trade in order.
    """

    session: int = -1
    expected: int = 0
    gaps: list[tuple[int, int]] = []
    quote_ns: int = LONG_AGO
    quote_number: int | None = None
    trade_ns: int = LONG_AGO

    def check(self, tick: Tick, now_ns: int, ahead_ns: int) -> Found:
        """What to do with the next message.

        Args:
            tick: the message.
            now_ns: the receiver's clock.
            ahead_ns: how far a stamp may be ahead of it.
        """
        found = self._sequence(tick.session, tick.sequence)
        if found.reason is not None:
            return found
        reason = self._clock(tick, now_ns, ahead_ns)
        return found if reason is None else found._replace(reason=reason)

    def _sequence(self, session: int, sequence: int) -> Found:
        if session == self.session and sequence == self.expected:
            self.expected += 1
            return IN_ORDER
        if session < self.session:
            return Found(Reason.LATE, 0, reset=False)
        if session > self.session:
            began = self.session >= 0
            self.session, self.expected, self.gaps = session, sequence + 1, []
            return Found(None, 0, reset=began)
        if sequence > self.expected:
            lost = sequence - self.expected
            self.gaps = [*self.gaps, (self.expected, sequence - 1)][-GAPS:]
            self.expected = sequence + 1
            return Found(None, lost, reset=True)
        for place, (first, last) in enumerate(self.gaps):
            if first <= sequence <= last:
                left = [(first, sequence - 1), (sequence + 1, last)]
                self.gaps[place : place + 1] = [gap for gap in left if gap[0] <= gap[1]]
                return Found(Reason.LATE, -1, reset=False)
        return Found(Reason.DUPLICATE, 0, reset=False)

    def _clock(self, tick: Tick, now_ns: int, ahead_ns: int) -> Reason | None:
        """Whether the stamp fits: a quote after the quotes, a trade after quotes and trades."""
        stamp = tick.local_ns
        if stamp > now_ns + ahead_ns:
            return Reason.AHEAD_OF_CLOCK
        if stamp < self.quote_ns:
            return Reason.LATE
        if isinstance(tick, Quote):
            self.quote_ns, self.quote_number = stamp, tick.source_sequence
            return None
        if stamp < self.trade_ns or (stamp == self.quote_ns and self._known_earlier(tick)):
            return Reason.LATE
        self.trade_ns = stamp
        return None

    def _known_earlier(self, tick: Tick) -> bool:
        """Whether a row that was already made should have counted this trade."""
        number = tick.source_sequence
        return number is not None and self.quote_number is not None and number < self.quote_number
