"""Frames of every kind become events; everything else is refused with a reason."""

import json
from typing import Any

import pytest

from model_code.market.level2.frames import (
    BookSnapshot,
    BookUpdate,
    FrameError,
    QuoteFrame,
    TradeFrame,
    parse_frame,
)

SPOT_QUOTE = {"u": 9, "s": "BTCUSDT", "b": "61837.63", "B": "3.7", "a": "61837.64", "A": "1.5"}
TRADE = {"e": "trade", "s": "BTCUSDT", "t": 7, "p": "10.5", "q": "0.02", "m": True, "T": 1}
UPDATE = {"e": "depthUpdate", "s": "X", "U": 4, "u": 6, "b": [["1.5", "0.0"]], "a": []}
BOOK = {"lastUpdateId": 8, "bids": [["1.5", "2"], ["1.4", "1"]], "asks": [["1.6", "3"]]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (SPOT_QUOTE, QuoteFrame("BTCUSDT", 61837.63, 3.7, 61837.64, 1.5, 9)),
        (SPOT_QUOTE | {"e": "bookTicker"}, QuoteFrame("BTCUSDT", 61837.63, 3.7, 61837.64, 1.5, 9)),
        (TRADE, TradeFrame("BTCUSDT", 7, 10.5, 0.02, True, 1)),
        (UPDATE, BookUpdate("X", 4, 6, None, ((1.5, 0.0),), ())),
        (UPDATE | {"pu": 3}, BookUpdate("X", 4, 6, 3, ((1.5, 0.0),), ())),
        (BOOK, BookSnapshot("", 8, ((1.5, 2.0), (1.4, 1.0)), ((1.6, 3.0),))),
        (BOOK | {"symbol": "X"}, BookSnapshot("X", 8, ((1.5, 2.0), (1.4, 1.0)), ((1.6, 3.0),))),
    ],
)
def test_each_kind_of_frame_alone_and_in_a_combined_stream(
    data: dict[str, Any], expected: object
) -> None:
    assert parse_frame(json.dumps(data)) == expected
    assert parse_frame(json.dumps({"stream": "x", "data": data}).encode()) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        (json.dumps(TRADE)[:-3], "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        ("[1, 2]", "not market data"),
        ('{"data": null}', "not market data"),
        ('{"result": null, "id": 1}', "not a bookTicker, trade, depthUpdate or REST book"),
        (json.dumps(TRADE | {"e": "kline"}), "not a bookTicker, trade, depthUpdate or REST book"),
        (json.dumps(TRADE | {"e": [1]}), "not a bookTicker, trade, depthUpdate or REST book"),
        (json.dumps({"e": "trade", "s": "X"}), "trade: no field m"),
        (json.dumps(TRADE | {"m": 1}), "trade: a field has the wrong type or is not finite"),
        (json.dumps(TRADE | {"t": "7"}), "trade: a field has the wrong type or is not finite"),
        (json.dumps(TRADE | {"p": "ten"}), "trade: a field has the wrong type or is not finite"),
        (json.dumps(TRADE | {"q": "NaN"}), "trade: a field has the wrong type or is not finite"),
        (json.dumps(TRADE | {"s": 3}), "trade: a field has the wrong type or is not finite"),
        (json.dumps(SPOT_QUOTE | {"b": "inf"}), "bookTicker: a field has the wrong type"),
        (json.dumps(UPDATE | {"b": {}}), "depthUpdate: a field has the wrong type"),
        (json.dumps(UPDATE | {"b": [["1.5"]]}), "depthUpdate: a field has the wrong type"),
        (json.dumps(UPDATE | {"a": [["0", "1"]]}), "depthUpdate: a field has the wrong type"),
        (json.dumps(UPDATE | {"a": [["1", "-1"]]}), "depthUpdate: a field has the wrong type"),
        (json.dumps(UPDATE | {"U": True}), "depthUpdate: a field has the wrong type"),
        (json.dumps(BOOK | {"lastUpdateId": None}), "book: a field has the wrong type"),
    ],
)  # fmt: skip
def test_a_malformed_frame_is_refused_with_the_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        parse_frame(text)
    assert str(caught.value).startswith(reason)
