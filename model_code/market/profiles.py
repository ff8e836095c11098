"""What is normal in a market: one profile per kind, with a tolerance for each rule.

Rows that break a rule are set aside in every market, counted by reason. A rule with a tolerance
does not count as a fault: it fails a day only beyond its own share of the rows. Shares are of real
days: US equities have locked quotes on 0.2 to 4% of the rows of a day and one-sided books around
the opening cross; the indicative quotes of one FX venue cross themselves on 9 to 13% of theirs and
lock on 10 to 16%.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from model_code.settings import ProfileName, ValidationSpec

DEFAULT: ProfileName = "crypto"


@dataclass(frozen=True)
class Profile:
    """Tolerances of one kind of market.

    Attributes:
        meaning: which markets it is for.
        tolerance: rule -> largest share of a day's rows that may break it.
        maximum_gap_s: longest silence.
        maximum_spread_bps: widest spread of a usable quote.
        max_trade_fault_fraction: largest share of trades that are bad or outside the quotes.
    """

    meaning: str
    maximum_gap_s: float
    maximum_spread_bps: float
    max_trade_fault_fraction: float
    tolerance: Mapping[str, float] = field(default_factory=dict)


PROFILES: dict[ProfileName, Profile] = {
    "crypto": Profile(
        meaning="continuous two-sided books, around the clock",
        maximum_gap_s=60.0,
        maximum_spread_bps=100.0,
        max_trade_fault_fraction=0.01,
    ),
    "us-equities": Profile(
        meaning="sessions with auctions; locked quotes and one-sided books are normal",
        maximum_gap_s=900.0,
        maximum_spread_bps=300.0,
        max_trade_fault_fraction=0.10,  # prints before the opening and after the close
        tolerance={
            "missing_bid": 0.05,
            "missing_ask": 0.05,
            "price_not_positive": 0.05,
            "size_not_positive": 0.05,
            "locked_quote": 0.10,
            "crossed_quote": 0.05,
            "spread_too_wide": 0.05,
        },
    ),
    "fx": Profile(
        meaning="indicative quotes, often without sizes and trades; crossed rows are normal",
        maximum_gap_s=300.0,
        maximum_spread_bps=100.0,
        max_trade_fault_fraction=0.01,
        tolerance={"locked_quote": 0.25, "crossed_quote": 0.20},
    ),
}


@dataclass(frozen=True)
class Limits:
    """The thresholds of a day: the specification's, else the profile's."""

    profile: ProfileName
    max_fault_fraction: float
    minimum_rows: int
    maximum_gap_s: float
    maximum_spread_bps: float
    maximum_jump_sigma: float
    trade_band_bps: float
    max_trade_fault_fraction: float
    tolerance: Mapping[str, float]


def presumed(*, sized: bool, traded: bool) -> ProfileName:
    """The profile of a store that states none: `fx` for quotes without sizes and trades."""
    return DEFAULT if sized or traded else "fx"


def limits(spec: ValidationSpec, stated: ProfileName | None = None) -> Limits:
    """Resolve the thresholds.

    Args:
        spec: the specification; what it sets counts.
        stated: the profile that the store states, or what is presumed, for a specification
            without one.
    """
    name = spec.profile or stated or DEFAULT
    profile = PROFILES[name]
    return Limits(
        profile=name,
        max_fault_fraction=spec.max_fault_fraction,
        minimum_rows=spec.minimum_rows,
        maximum_gap_s=spec.maximum_gap_s or profile.maximum_gap_s,
        maximum_spread_bps=spec.maximum_spread_bps or profile.maximum_spread_bps,
        maximum_jump_sigma=spec.maximum_jump_sigma,
        trade_band_bps=spec.trade_band_bps,
        max_trade_fault_fraction=(
            profile.max_trade_fault_fraction
            if spec.max_trade_fault_fraction is None
            else spec.max_trade_fault_fraction
        ),
        tolerance=profile.tolerance,
    )
