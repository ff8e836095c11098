import json
import math
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.live.messages import (
    DeadLetter,
    Decision,
    Latency,
    MessageError,
    Quote,
    Tick,
    decode,
    encode,
    read,
)
from model_code.live.reasons import Reason
from tests.support.live import quote, trade

DECISION = Decision(
    symbol="A", sequence=1, session=0, exchange_ns=None, local_ns=5, model_version=3,
    probability=0.7, threshold=0.6, decision=True, side=None,
    latency=Latency(decode=1, features=2, queue=3, inference=4, publish=5), deadline_ns=9,
    flags=("in-process",),
)  # fmt: skip


def fields(**changes: object) -> dict[str, object]:
    found: dict[str, object] = msgspec.to_builtins(quote(1))
    return {name: value for name, value in (found | changes).items() if value is not ...}


def reason(payload: bytes) -> Reason:
    with pytest.raises(MessageError) as error:
        decode(payload)
    assert error.value.reason in str(error.value)
    return error.value.reason


def test_messages_survive_both_encodings() -> None:
    for message in (quote(1), trade(2), quote(3, bid_size=None, ask_size=None, exchange_ns=4)):
        assert decode(encode(message)) == (message,)
        assert decode(msgspec.json.encode(message)) == (message,)
        assert decode(b" \n" + msgspec.json.encode(message)) == (message,)


def test_a_missing_value_of_the_desk_is_not_a_number() -> None:
    (found,) = decode(encode(quote(1, vwap=math.nan, bid_price=math.nan)))
    assert isinstance(found, Quote)
    assert found.vwap is not None
    assert math.isnan(found.vwap)
    assert math.isnan(found.bid_price)
    assert found.last_trade is None


def test_a_list_holds_the_ticks_of_one_instant() -> None:
    both: list[Tick] = [quote(1), trade(2)]
    assert decode(encode(both)) == tuple(both)
    assert decode(msgspec.json.encode(both)) == tuple(both)
    assert reason(encode([quote(1), trade(2, at_ms=1.0)])) == Reason.WRONG_TYPE
    assert reason(encode([])) == Reason.WRONG_TYPE


@pytest.mark.parametrize("payload", [b"", b"{", b"\xc1", b'[{"type"', encode(quote(1))[:-3]])
def test_bytes_of_no_message_are_malformed(payload: bytes) -> None:
    assert reason(payload) == Reason.MALFORMED


@pytest.mark.parametrize(
    "changes",
    [
        {"bid_price": "100"},
        {"bid_price": None},
        {"bid_price": ...},
        {"bid_prize": 1.0},
        {"symbol": ""},
        {"symbol": 3},
        {"sequence": -1},
        {"sequence": 1.5},
        {"local_ns": 2**63},
        {"source_sequence": 2**63},
        {"source_sequence": -(2**63) - 1},
        {"type": "news"},
    ],
    ids=str,
)
def test_a_field_that_is_wrong_is_named(changes: dict[str, object]) -> None:
    found = fields(**changes)
    with suppress(OverflowError):  # MessagePack cannot hold it
        assert reason(msgspec.msgpack.encode(found)) == Reason.WRONG_TYPE
    assert reason(json.dumps(found).encode()) == Reason.WRONG_TYPE
    assert reason(json.dumps([found]).encode()) == Reason.WRONG_TYPE


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_told_apart(version: object) -> None:
    found = fields(version=version, bid_price=..., price_of_bid=1.0)
    assert reason(msgspec.msgpack.encode(found)) == Reason.UNKNOWN_VERSION
    assert reason(json.dumps(found).encode()) == Reason.UNKNOWN_VERSION


def test_decisions_and_dead_letters_are_read_back() -> None:
    assert read(Decision, encode(DECISION)) == DECISION
    assert DECISION.latency.total == 15
    letter = DeadLetter(reason=Reason.MALFORMED, detail="x", at_ns=1, payload=b"\xc1")
    assert read(DeadLetter, encode(letter)) == letter
    with pytest.raises(MessageError, match="wrong_type"):
        read(Decision, encode(letter))
    with pytest.raises(MessageError, match="malformed"):
        read(Decision, b"\xc1")


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(payload: bytes) -> None:
    with suppress(MessageError):
        assert decode(payload)
