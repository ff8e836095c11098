"""One frame of Binance's market data as a typed event: pure functions, for recordings and live.

Frames of a combined stream (`{"stream": ..., "data": {...}}`) or of a single one (the data alone):
`bookTicker`, `trade`, `depthUpdate`, and the REST order book (`lastUpdateId`). Spot, USD-margined
and coin-margined futures. Source: developers.binance.com, 'WebSocket Streams'.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

Levels = tuple[tuple[float, float], ...]
"""(price, size) of one side, in the order of the frame; size 0 removes a level."""


class QuoteFrame(NamedTuple):
    """Best bid and ask (`bookTicker`).

    Attributes:
        update_id: of the order book (`u`); grows, with holes. None where the frame has none.
        exchange_ms: the exchange's stamp; None on spot, which does not send it.
    """

    symbol: str
    bid_price: float
    bid_size: float
    ask_price: float
    ask_size: float
    update_id: int | None = None
    exchange_ms: int | None = None


class TradeFrame(NamedTuple):
    """One trade; `buyer_is_maker`: the aggressor sold.

    Attributes:
        trade_id: counts an instrument's trades without holes (`t`).
        exchange_ms: the exchange's stamp; None where the frame has none.
    """

    symbol: str
    trade_id: int
    price: float
    size: float
    buyer_is_maker: bool
    exchange_ms: int | None = None


class BookUpdate(NamedTuple):
    """Changed levels (`depthUpdate`).

    Attributes:
        first, last: update ids that the event covers (`U`, `u`).
        previous: `last` of the event before it (`pu`); None on spot, which does not send it.
    """

    symbol: str
    first: int
    last: int
    previous: int | None
    bids: Levels
    asks: Levels


class BookSnapshot(NamedTuple):
    """The REST order book; `symbol` is empty where the answer does not name it."""

    symbol: str
    last: int
    bids: Levels
    asks: Levels


_MOST = 2**63
Event = QuoteFrame | TradeFrame | BookUpdate | BookSnapshot


class FrameError(ValueError):
    """A frame that is not one of the four kinds, or is malformed; its text is the reason."""


def parse_frame(text: str | bytes) -> Event:
    """Read one frame. Prices and sizes are finite; a quote or trade may still have a price of 0.

    Raises:
        FrameError: not JSON, another kind of frame, or a field is missing or not a number.
    """
    try:
        frame = json.loads(text)
    except ValueError as error:
        raise FrameError("not JSON") from error
    data = frame.get("data", frame) if isinstance(frame, dict) else None
    if not isinstance(data, dict):
        raise FrameError("not market data")
    kind = data.get("e") or _unnamed(data)
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise FrameError("not a bookTicker, trade, depthUpdate or REST book")
    try:
        return read(data)
    except KeyError as error:
        raise FrameError(f"{kind}: no field {error.args[0]}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"{kind}: a field has the wrong type or is not finite") from error


def _unnamed(data: Mapping[str, Any]) -> str:
    """The kind of a frame without `e`: the REST book, and spot's bookTicker."""
    if "lastUpdateId" in data:
        return "book"
    return "bookTicker" if {"u", "b", "B", "a", "A"} <= data.keys() else ""


def _quote(data: Mapping[str, Any]) -> Event:
    return QuoteFrame(
        _text(data["s"]),
        _number(data["b"]),
        _number(data["B"]),
        _number(data["a"]),
        _number(data["A"]),
        _whole(data.get("u")),
        _whole(data.get("T")),
    )


def _trade(data: Mapping[str, Any]) -> Event:
    sold = data["m"]
    if not isinstance(sold, bool):
        raise TypeError("m")
    return TradeFrame(
        _text(data["s"]),
        _id(data["t"]),
        _number(data["p"]),
        _number(data["q"]),
        sold,
        _whole(data.get("T")),
    )


def _update(data: Mapping[str, Any]) -> Event:
    previous = _id(data["pu"]) if "pu" in data else None
    return BookUpdate(
        _text(data["s"]),
        _id(data["U"]),
        _id(data["u"]),
        previous,
        _levels(data["b"]),
        _levels(data["a"]),
    )


def _book(data: Mapping[str, Any]) -> Event:
    symbol = _text(data.get("symbol", ""))
    return BookSnapshot(
        symbol, _id(data["lastUpdateId"]), _levels(data["bids"]), _levels(data["asks"])
    )


_READERS = {"bookTicker": _quote, "trade": _trade, "depthUpdate": _update, "book": _book}


def _levels(pairs: Any) -> Levels:
    if not isinstance(pairs, list):
        raise TypeError("levels")
    found = tuple([(float(price), float(size)) for price, size in pairs])
    for price, size in found:
        if not (0.0 < price < math.inf and 0.0 <= size < math.inf):
            raise ValueError("level")
    return found


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("number")
    return number


def _id(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("id")
    return value


def _whole(value: Any) -> int | None:
    """A whole number that the frame may lack."""
    return value if type(value) is int and 0 <= value < _MOST else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("symbol")
    return value
