"""What the page and the terminal show: one document, sent twice a second as JSON.

Times are ms since the epoch, UTC, on the service's clock.
"""

from typing import Literal

import msgspec

State = Literal["starting", "no ticks yet", "warming up", "live", "no decisions", "interrupted"]
LIMIT_MS = 10.0
"""Limit of the p99 from tick to decision."""


class Point(msgspec.Struct, frozen=True, array_like=True):
    """An instrument in a quarter of a second.

    Attributes:
        at_ms: begin.
        price: newest mid price.
        probability, threshold: of the newest decision.
        opportunities: decisions that were true.
        decisions: all.
    """

    at_ms: int
    price: float
    probability: float
    threshold: float
    opportunities: int
    decisions: int


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument's newest decision, and its last minutes.

    Attributes:
        symbol: instrument.
        bid_price, ask_price: of the newest window.
        probability, threshold, decision, side, version, flags: of the newest decision.
        tick_ms: local stamp of its tick.
        at_ms: when it was made.
        decisions, opportunities: since the start.
        points: newest last; in an event those since the event before, its last one again.
    """

    symbol: str
    bid_price: float
    ask_price: float
    probability: float
    threshold: float
    decision: bool
    side: str | None
    version: int
    flags: tuple[str, ...]
    tick_ms: int
    at_ms: int
    decisions: int
    opportunities: int
    points: list[Point] = []


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Latency of a stage over the last minute, in ms; None without a decision."""

    name: str
    count: int
    p50: float | None
    p99: float | None
    p999: float | None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the service needs."""

    name: str
    state: Literal["up", "down", "unknown"]
    detail: str = ""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of drift with its limit; None: it has none."""

    name: str
    value: float
    limit: float | None = None
    breached: bool = False


class Opportunity(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that was true."""

    at_ms: int
    symbol: str
    probability: float
    threshold: float
    version: int
    total_ms: float


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger: `taken` equals the sum of `columns` and `waiting`."""

    taken: int
    columns: dict[str, int]
    reasons: dict[str, int]
    waiting: int
    lost: int
    reordered: int
    duplicated: int


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a service at one moment.

    Attributes:
        at_ms, started_ms: now and the start.
        state: of the stream.
        tick_age_s, decision_age_s: since the newest; None before the first.
        recorded: stamps are far from the clock, as those of recorded days.
        ticks_per_s, decisions_per_s: over the last ten seconds.
        lag: messages in the broker; None: unknown.
        unprocessed, unconfirmed, pauses, queue_full, sink_failures: as in `Status`.
        stages: latency, first from tick to decision.
        versions: decisions of the last minute by model version.
        flags: decisions of the last minute by flag.
        recent: decisions of the last minute.
        champion, candidate, share: the route; None where there is none.
        instruments: by name.
        opportunities: newest first.
        parts: broker, Redis, Triton.
        drift: of the live features; None: not measured.
        hidden: instruments that are not shown.
    """

    at_ms: int
    started_ms: int
    state: State
    tick_age_s: float | None
    decision_age_s: float | None
    recorded: bool
    ticks_per_s: float
    decisions_per_s: float
    lag: int | None
    unprocessed: int
    unconfirmed: int
    pauses: int
    queue_full: int
    sink_failures: int
    ledger: Counts
    stages: list[Stage]
    versions: dict[str, int]
    flags: dict[str, int]
    recent: int
    champion: int | None
    candidate: int | None
    share: float
    instruments: list[Instrument]
    opportunities: list[Opportunity]
    parts: list[Part]
    drift: list[Figure] | None
    hidden: int = 0
    limit_ms: float = LIMIT_MS


ENCODER = msgspec.json.Encoder()
DECODER = msgspec.json.Decoder(Document)
