"""What travels on the wire: quotes and trades in, decisions and dead letters out.

MessagePack, or the same fields as JSON. Times are ns since the epoch, UTC. Prices and sizes are in
the units of `market.schema.TICKS`.
"""

from typing import Annotated, Literal, TypeVar

import msgspec

from model_code.errors import DataError
from model_code.live.reasons import Reason

VERSION: Literal[1] = 1
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
S = TypeVar("S", bound=msgspec.Struct)


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    pass


class Quote(_Message, frozen=True, kw_only=True, tag_field="type", tag="quote"):
    """One update of an instrument's best quotes.

    Attributes:
        symbol: instrument and venue.
        sequence: number within symbol and session, quotes and trades together, without gaps.
        local_ns: when the feed handler received it; the time that features use.
        bid_price, ask_price: NaN where a side is missing.
        bid_size, ask_size: None where the venue has no sizes.
        exchange_ns: the venue's own stamp.
        session: of the feed handler; a larger one begins a new sequence.
        source_sequence: the source's own order of quotes and trades of one stamp, as the column
            `sequence` of a store; None: stamps alone decide.
        last_trade, vwap, feature_ema_1min: the desk's own values; None: computed from the trades
            and quotes; NaN: the desk has none.
        version: of this schema.
    """

    symbol: Name
    sequence: Count
    local_ns: Count
    bid_price: float
    ask_price: float
    bid_size: float | None = None
    ask_size: float | None = None
    exchange_ns: Count | None = None
    session: Count = 0
    source_sequence: Number | None = None
    last_trade: float | None = None
    vwap: float | None = None
    feature_ema_1min: float | None = None
    version: Literal[1] = VERSION


class Trade(_Message, frozen=True, kw_only=True, tag_field="type", tag="trade"):
    """One trade; fields as in `Quote`.

    Attributes:
        buyer_is_maker: the aggressor sold; None: classified by Lee and Ready.
    """

    symbol: Name
    sequence: Count
    local_ns: Count
    price: float
    size: float
    buyer_is_maker: bool | None = None
    exchange_ns: Count | None = None
    session: Count = 0
    source_sequence: Number | None = None
    version: Literal[1] = VERSION


class Latency(_Message, frozen=True, kw_only=True):
    """Time by stage in ns: reading the bytes, features, waiting in the slot, model, hand-over."""

    decode: int
    features: int
    queue: int
    inference: int
    publish: int

    @property
    def total(self) -> int:
        """From the bytes to the hand-over, in ns."""
        return self.decode + self.features + self.queue + self.inference + self.publish


class Decision(_Message, frozen=True, kw_only=True, tag_field="type", tag="decision"):
    """A model's decision on the newest window of an instrument.

    Attributes:
        symbol, sequence, session, exchange_ns, local_ns: of the quote that ends the window.
        model_version: that answered.
        probability: of an opportunity.
        threshold: `decision` is true from this probability on.
        decision: whether the model sees an opportunity.
        side: to open; None where the label has no direction.
        latency: of this decision.
        received_ns: when the tick was received here, on the receiver's clock.
        decided_ns: when the model had answered, on the same clock.
        deadline_ns: after it the decision is stale; None without a limit.
        flags: `fallback` if another model than the routed one answered, `in-process` if no server.
    """

    symbol: Name
    sequence: Count
    session: Count
    exchange_ns: Count | None
    local_ns: Count
    model_version: int
    probability: float
    threshold: float
    decision: bool
    side: Literal["buy", "sell"] | None
    latency: Latency
    received_ns: Count | None = None
    decided_ns: Count | None = None
    deadline_ns: Count | None = None
    flags: tuple[Literal["fallback", "in-process"], ...] = ()
    version: Literal[1] = VERSION


class DeadLetter(_Message, frozen=True, kw_only=True, tag_field="type", tag="dead-letter"):
    """A message that cannot be used, for a person to read.

    Attributes:
        reason: one of `Reason`.
        detail: what was found.
        at_ns: when.
        payload: the bytes as received.
    """

    reason: str
    detail: str
    at_ns: int
    payload: bytes
    version: Literal[1] = VERSION


Tick = Quote | Trade
Message = Quote | Trade | Decision | DeadLetter


class MessageError(DataError):
    """A message that cannot be read; `reason` says why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(
            f"unreadable message, {reason}: {detail}", remedy="compare it with docs/live.md"
        )
        self.reason, self.detail = reason, detail


class _Header(msgspec.Struct):
    version: object = VERSION


_TICKS = Quote | Trade | list[Quote | Trade]
_HEADERS = _Header | list[_Header]
_MSGPACK, _JSON = msgspec.msgpack.Decoder(_TICKS), msgspec.json.Decoder(_TICKS)
_ENCODER = msgspec.msgpack.Encoder()
# neither begins a map or an array in MessagePack
_JSON_STARTS = frozenset(b"{[ \t\r\n")


def decode(payload: bytes) -> tuple[Tick, ...]:
    """The quotes and trades of a message: one, or several of one instant in their order.

    Args:
        payload: MessagePack or JSON.

    Raises:
        MessageError: malformed, of an unknown version, a field missing, unknown or of the wrong
            type, or several instants in one message.
    """
    is_json = payload[:1] != b"" and payload[0] in _JSON_STARTS
    try:
        found = _JSON.decode(payload) if is_json else _MSGPACK.decode(payload)
    except msgspec.ValidationError as error:
        raise _refusal(payload, str(error), is_json=is_json) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(Reason.MALFORMED, str(error)) from error
    if not isinstance(found, list):
        return (found,)
    if len({tick.local_ns for tick in found}) != 1:
        raise MessageError(Reason.WRONG_TYPE, "a list needs ticks of one local_ns")
    return tuple(found)


def encode(message: Message | list[Tick]) -> bytes:
    """The message as MessagePack."""
    return _ENCODER.encode(message)


def read(kind: type[S], payload: bytes) -> S:
    """A message of a known kind, for example a `Decision`, from MessagePack.

    Raises:
        MessageError: it is another, or malformed.
    """
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(payload, str(error), is_json=False) from error
    except msgspec.DecodeError as error:
        raise MessageError(Reason.MALFORMED, str(error)) from error


def _refusal(payload: bytes, detail: str, *, is_json: bool) -> MessageError:
    """The error for readable bytes that are not a message."""
    try:
        read_header = msgspec.json.decode if is_json else msgspec.msgpack.decode
        found = read_header(payload, type=_HEADERS)
    except msgspec.DecodeError:
        return MessageError(Reason.WRONG_TYPE, detail)
    versions = [one.version for one in (found if isinstance(found, list) else [found])]
    if any(version != VERSION for version in versions):
        return MessageError(Reason.UNKNOWN_VERSION, f"version {versions}, known: {VERSION}")
    return MessageError(Reason.WRONG_TYPE, detail)
