"""Which other instruments of a date an instrument needs."""

import pytest

from model_code.features.supplements.others import needed
from model_code.settings import FeatureSpec

VENUES = FeatureSpec(feature_set="venues", label="cross-venue")
PRESENT = ("A", "B", "C", "E.x", "E.y", "E.z")


@pytest.mark.parametrize(
    ("symbol", "spec", "leaders", "found"),
    [
        ("A", FeatureSpec(), (), ()),
        ("A", FeatureSpec(), ("C", "B"), ("B", "C")),
        ("A", FeatureSpec(), ("C", "gone", "B"), ("C",)),  # paired looks at two
        ("A", FeatureSpec(feature_set="solo"), ("B",), ()),
        ("A", FeatureSpec(feature_set="depth"), ("B",), ()),
        ("E.x", FeatureSpec(feature_set="venues"), ("E.z", "E.y"), ("E.z",)),
        ("E.x", VENUES, ("E.z",), ("E.y", "E.z")),  # the label sees every venue
    ],
)
def test_needed_are_the_leaders_looked_at_and_the_venues_of_the_label(
    symbol: str, spec: FeatureSpec, leaders: tuple[str, ...], found: tuple[str, ...]
) -> None:
    assert needed(symbol, PRESENT, spec, leaders) == found
