"""How to connect to Binance."""

from typing import Annotated, Literal

from pydantic import Field

from model_code.settings import Spec

Seconds = Annotated[float, Field(gt=0)]
Url = Annotated[str, Field(pattern=r"^[a-z]+://[^\s?#]+[^\s/?#]$")]
Market = Literal["spot", "usdm", "coinm"]


class Endpoint(Spec):
    """One market's addresses.

    Attributes:
        stream: base URL of combined streams; `/stream?streams=...` follows.
        book: URL of the REST order book; `?symbol=...&limit=...` follows.
    """

    KIND: Literal["binance-endpoint"] = "binance-endpoint"
    stream: Url
    book: Url


class BinanceSpec(Spec):
    """Addresses, streams and times. The defaults are the exchange's public ones.

    Attributes:
        spot, usdm, coinm: the markets.
        depth: stream of depth events; None: none, and then nothing checks the quotes for gaps.
        book_levels: of the REST order book.
        most_streams: of one connection; more symbols share several.
        connect_s, silence_s, ping_s: longest wait for a connection, for a frame, and for the answer
            to a ping. After it the connection is renewed.
        renew_h: how long a connection is used; the exchange itself ends each after 24 hours.
        retry_s, retry_most_s: first and longest wait between two attempts. It doubles, and each
            wait is drawn between 0 and it.
        stable_s: a connection that lasted this long starts again with the first wait.
        book_pause_s: between two requests for order books of a market.
        limited_s: pause after HTTP 429 or 418 that names no time.
    """

    KIND: Literal["binance"] = "binance"
    spot: Endpoint = Endpoint(
        stream="wss://stream.binance.com:9443", book="https://api.binance.com/api/v3/depth"
    )
    usdm: Endpoint = Endpoint(
        stream="wss://fstream.binance.com/public", book="https://fapi.binance.com/fapi/v1/depth"
    )
    coinm: Endpoint = Endpoint(
        stream="wss://dstream.binance.com", book="https://dapi.binance.com/dapi/v1/depth"
    )
    depth: Annotated[str, Field(pattern=r"^depth(@\d+ms)?$")] | None = "depth@100ms"
    book_levels: Annotated[int, Field(ge=5, le=1000)] = 1000
    most_streams: Annotated[int, Field(ge=3, le=1024)] = 200
    connect_s: Seconds = 10.0
    silence_s: Seconds = 30.0
    ping_s: Seconds = 20.0
    renew_h: Annotated[float, Field(gt=0, le=24)] = 23.5
    retry_s: Seconds = 0.5
    retry_most_s: Seconds = 30.0
    stable_s: Seconds = 10.0
    book_pause_s: Seconds = 1.0
    limited_s: Seconds = 60.0
