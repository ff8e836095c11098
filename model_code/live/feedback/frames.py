"""What the service hands to the process that judges it, and what comes back.

Shapes: T = 64 steps, F = 16 features.
"""

from typing import TypeVar

import msgspec

from model_code.live.messages import Decision

M = TypeVar("M", bound=msgspec.Struct)


class SeenRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A valid quote row, whether or not its window was asked about.

    Attributes:
        symbol, session, sequence, local_ns: of the quote.
        bid, ask: best prices.
        begins: it is the first row of a segment.
    """

    symbol: str
    session: int
    sequence: int
    local_ns: int
    bid: float
    ask: float
    begins: bool


class Sampled(msgspec.Struct, frozen=True, array_like=True):
    """A sampled decision with its input.

    Attributes:
        decision: as published.
        features: float32 (F,), the window's newest row, as bytes.
        window: float32 (T, F) as bytes; None unless the decision is logged.
    """

    decision: Decision
    features: bytes
    window: bytes | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """Symbol, session and sequence of the quote that it is on."""
        return self.decision.symbol, self.decision.session, self.decision.sequence


class Frame(msgspec.Struct, frozen=True):
    """A part of the stream, in order.

    Attributes:
        rows: valid rows of all instruments.
        sampled: decisions; their rows are in this frame or an earlier one.
        gap: an earlier frame was dropped, so that labels must not look across this place.
    """

    rows: list[SeenRow] = []
    sampled: list[Sampled] = []
    gap: bool = False


def pack(message: msgspec.Struct) -> bytes:
    """A message with its length in front, 4 bytes, big-endian."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + body


def unpack(kind: type[M], body: bytes) -> M:
    """The message of a body.

    Raises:
        msgspec.DecodeError: malformed.
    """
    return msgspec.msgpack.decode(body, type=kind)
