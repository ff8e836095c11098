"""What Redis holds of the live path: keys, fields and the script that guards each write.

One hash per instrument has two parts, the newest decision and the newest quote, each with a
session, a sequence and times of its own: a newer quote may have no decision yet.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from model_code.features.definition import names
from model_code.live.messages import Decision
from model_code.live.path import Asked
from model_code.settings import FeatureSetName

MS_NS = 1_000_000
Part = Literal["", "quote_"]

# 1: written; 0: this number is already there; -1: behind the number that is there.
# Numbers are compared as text: a number in Lua is a double and exact only up to 2^53.
SCRIPT = """
local function compare(a, b)
  if #a ~= #b then return #a < #b and -1 or 1 end
  if a == b then return 0 end
  return a < b and -1 or 1
end
local key, part, session, sequence, life_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local known = redis.call('HMGET', key, part .. 'session', part .. 'sequence', 'sequence')
if known[1] then
  local by = compare(session, known[1])
  if by == 0 then by = compare(sequence, known[2]) end
  if by <= 0 then return by end
end
redis.call('HSET', key, part .. 'session', session, part .. 'sequence', sequence, unpack(ARGV, 5))
-- the key ends with its decision: a quote beside one does not prolong it
if part == '' or not known[3] then redis.call('PEXPIRE', key, life_ms) end
return 1
"""


class MarketState(NamedTuple):
    """A quote and what is known at its row; None where it is not known.

    Attributes:
        symbol, session, sequence, exchange_ns, local_ns: of the quote.
        bid_price, ask_price, bid_size, ask_size, last_trade: as in `market.schema.TICKS`.
        vwap: of the session.
        ema_1min: the column `feature_ema_1min`.
        volatility: the feature of that name, in log ticks; None if the version does not see it.
        imbalance: (bid_size - ask_size) / (bid_size + ask_size).
    """

    symbol: str
    session: int
    sequence: int
    local_ns: int
    bid_price: float
    ask_price: float
    exchange_ns: int | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    last_trade: float | None = None
    vwap: float | None = None
    ema_1min: float | None = None
    volatility: float | None = None
    imbalance: float | None = None


class Item(NamedTuple):
    """One part of one instrument's hash, to be written.

    Attributes:
        symbol: instrument.
        part: prefix of its session and sequence.
        order: session and sequence.
        end_ns: the key must not outlive it.
        deadline_ns: not written after it.
        fields: name, value, name, value ..., without session and sequence.
        fault: why it must not be written; empty if it may.
        sent: sent before, without an answer.
    """

    symbol: str
    part: Part
    order: tuple[int, int]
    end_ns: int
    deadline_ns: int
    fields: tuple[str, ...]
    fault: str = ""
    sent: bool = False

    def arguments(self, now_ns: int, expire_ms: int) -> tuple[str | int, ...]:
        """The script's `ARGV`; a stamp ahead of the clock does not prolong the key."""
        life_ms = min(expire_ms, max(1, -((now_ns - self.end_ns) // MS_NS)))
        return (self.part, *self.order, life_ms, f"{self.part}written_ns", now_ns, *self.fields)


def state_key(prefix: str, symbol: str) -> str:
    """Key of an instrument's hash."""
    return f"{prefix}:state:{symbol}"


def market_states(asked: Asked, feature_set: FeatureSetName) -> Iterator[MarketState]:
    """The quotes that end the windows, in their order.

    Args:
        asked: what `LivePath.ready` returned.
        feature_set: of the version.
    """
    seen = names(feature_set)
    at = seen.index("volatility") if "volatility" in seen else None
    for one, x_TF in zip(asked.waiting, asked.x_BTF, strict=True):
        quote, row = one.quote, one.row
        both = row.bid_size + row.ask_size
        yield MarketState(
            symbol=quote.symbol,
            session=quote.session,
            sequence=quote.sequence,
            local_ns=quote.local_ns,
            bid_price=row.bid_price,
            ask_price=row.ask_price,
            exchange_ns=quote.exchange_ns,
            bid_size=row.bid_size,
            ask_size=row.ask_size,
            last_trade=row.last_trade,
            vwap=row.vwap,
            ema_1min=row.feature_ema_1min,
            volatility=None if at is None else float(x_TF[-1, at]),
            imbalance=(row.bid_size - row.ask_size) / both if both else None,
        )


def decision_item(decision: Decision, expire_ms: int) -> Item:
    """A decision's part. Without a deadline it is stale when its key expires."""
    end_ns = decision.local_ns + expire_ms * MS_NS
    deadline_ns = end_ns if decision.deadline_ns is None else min(decision.deadline_ns, end_ns)
    fault = ""
    if not 0.0 <= decision.probability <= 1.0:
        fault = f"probability {decision.probability}"
    values: dict[str, object] = {
        "probability": decision.probability,
        "threshold": decision.threshold,
        "decision": decision.decision,
        "side": decision.side,
        "model_version": decision.model_version,
        "exchange_ns": decision.exchange_ns,
        "local_ns": decision.local_ns,
        "deadline_ns": deadline_ns,
        "flags": ",".join(decision.flags),
    }
    order = (decision.session, decision.sequence)
    return _item(decision.symbol, "", order, end_ns, deadline_ns, values, fault)


def quote_item(state: MarketState, expire_ms: int) -> Item:
    """A quote's part."""
    end_ns = state.local_ns + expire_ms * MS_NS
    values = state._asdict()
    for name in ("symbol", "session", "sequence"):
        del values[name]
    for name in ("exchange_ns", "local_ns"):
        values[f"quote_{name}"] = values.pop(name)
    order = (state.session, state.sequence)
    return _item(state.symbol, "quote_", order, end_ns, end_ns, values, "")


def _item(
    symbol: str,
    part: Part,
    order: tuple[int, int],
    end_ns: int,
    deadline_ns: int,
    values: dict[str, object],
    fault: str,
) -> Item:
    try:
        symbol.encode()
    except UnicodeEncodeError:
        fault = "a symbol that is not Unicode"
    if min(order) < 0:
        fault = f"session and sequence {order}"
    fields = tuple(text for name, value in values.items() for text in (name, _text(value)))
    return Item(symbol, part, order, end_ns, deadline_ns, fields, fault)


def _text(value: object) -> str:
    """As redis-cli shows it; empty is unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
