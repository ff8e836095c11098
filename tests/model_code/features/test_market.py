"""Which features and label suit a market."""

import pytest

from model_code.features.market import settled
from model_code.settings import FeatureSpec

VENUES = ("EURUSD.fxcm", "EURUSD.oanda")


@pytest.mark.parametrize(
    ("profiles", "symbols", "expected"),
    [
        ({"fx"}, VENUES, ("venues", "cross-venue")),
        ({"fx"}, VENUES[:1], ("paired", "executable-roundtrip")),
        ({"fx"}, (*VENUES, "GBPUSD.fxcm"), ("paired", "executable-roundtrip")),
        ({"crypto"}, ("BTCUSDT.spot", "BTCUSDT.usdm"), ("paired", "executable-roundtrip")),
        ({"crypto", "fx"}, VENUES, ("paired", "executable-roundtrip")),
    ],
)
def test_fx_on_several_venues_is_judged_by_crossings(
    profiles: set[str], symbols: tuple[str, ...], expected: tuple[str, str]
) -> None:
    found, note = settled(FeatureSpec(horizon_ms=50.0), profiles, symbols)  # type: ignore[arg-type]
    assert (found.feature_set, found.label) == expected
    assert found.horizon_ms == 50.0
    assert bool(note) == (expected[0] == "venues")


def test_what_the_specification_names_counts() -> None:
    spec = FeatureSpec(feature_set="solo", label="mid-move")
    assert settled(spec, {"fx"}, VENUES) == (spec, "")
