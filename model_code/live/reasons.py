"""Why a message became no decision, and in which column of the ledger it is counted."""

from enum import StrEnum


class Column(StrEnum):
    """Where a message ends: in exactly one of these."""

    DECIDED = "decided"
    CONFLATED = "conflated"
    SUPPRESSED = "suppressed"
    DEAD_LETTERED = "dead-lettered"
    TRADES = "trades"


class Reason(StrEnum):
    """Why a message became no decision.

    Those from `MISSING_BID` to `SPREAD_TOO_WIDE` are rules of validation
    (`model_code.market.quality.row_rules`), by the same names.
    """

    MALFORMED = "malformed"
    UNKNOWN_VERSION = "unknown_version"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_SYMBOL = "unknown_symbol"
    AHEAD_OF_CLOCK = "ahead_of_clock"
    TRADE_BAD = "trade_bad"
    TRADE_OFF_QUOTES = "trade_off_quotes"
    MISSING_BID = "missing_bid"
    MISSING_ASK = "missing_ask"
    NOT_FINITE = "not_finite"
    PRICE_NOT_POSITIVE = "price_not_positive"
    SIZE_NOT_POSITIVE = "size_not_positive"
    FLOW_NEGATIVE = "flow_negative"
    CROSSED_QUOTE = "crossed_quote"
    LOCKED_QUOTE = "locked_quote"
    SPREAD_TOO_WIDE = "spread_too_wide"
    DUPLICATE = "duplicate"
    LATE = "late"
    REPEAT = "repeat"
    TRADE_EMPTY = "trade_empty"
    WARMING = "warming"
    STALE = "stale"
    INFERENCE_FAILED = "inference_failed"
    STOPPED = "stopped"


# usual in a sound feed or in a redelivery: counted, not put aside for a person to read
SUPPRESSED = frozenset(
    {
        Reason.LOCKED_QUOTE,
        Reason.DUPLICATE,
        Reason.LATE,
        Reason.REPEAT,
        Reason.TRADE_EMPTY,
        Reason.WARMING,
        Reason.STALE,
        Reason.INFERENCE_FAILED,
        Reason.STOPPED,
    }
)


def column(reason: Reason) -> Column:
    """The column of a message that became no decision for this reason."""
    return Column.SUPPRESSED if reason in SUPPRESSED else Column.DEAD_LETTERED
