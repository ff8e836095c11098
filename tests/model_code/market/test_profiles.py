import pytest

from model_code.market.profiles import DEFAULT, PROFILES, limits
from model_code.market.quality import row_rules
from model_code.settings import ProfileName, ValidationSpec

NAMES: tuple[ProfileName, ...] = ("crypto", "us-equities", "fx")


def test_what_the_specification_sets_counts_before_the_profile() -> None:
    spec = ValidationSpec(
        profile="fx", maximum_gap_s=1.0, maximum_spread_bps=2.0, max_trade_fault_fraction=0.0
    )
    found = limits(spec)
    assert found.profile == "fx"
    assert found.maximum_gap_s == 1.0
    assert found.maximum_spread_bps == 2.0
    assert found.max_trade_fault_fraction == 0.0
    assert found.tolerance == PROFILES["fx"].tolerance


@pytest.mark.parametrize("name", NAMES)
def test_the_profile_gives_what_the_specification_leaves_open(name: ProfileName) -> None:
    spec, profile = ValidationSpec(profile=name), PROFILES[name]
    found = limits(spec)
    assert found.maximum_gap_s == profile.maximum_gap_s
    assert found.maximum_spread_bps == profile.maximum_spread_bps
    assert found.max_trade_fault_fraction == profile.max_trade_fault_fraction
    assert found.tolerance == profile.tolerance
    assert found.max_fault_fraction == spec.max_fault_fraction
    assert found.minimum_rows == spec.minimum_rows
    assert found.maximum_jump_sigma == spec.maximum_jump_sigma
    assert found.trade_band_bps == spec.trade_band_bps


def test_the_specifications_profile_counts_before_the_stated_one_and_crypto_is_the_default() -> (
    None
):
    assert limits(ValidationSpec(profile="fx"), "us-equities").profile == "fx"
    assert limits(ValidationSpec(), "us-equities").profile == "us-equities"
    assert limits(ValidationSpec()).profile == DEFAULT == "crypto"


def test_every_tolerance_is_of_a_rule() -> None:
    assert set(PROFILES) == set(NAMES)
    for name, profile in PROFILES.items():
        rules = {rule.name for rule in row_rules(limits(ValidationSpec(profile=name)))}
        assert set(profile.tolerance) <= rules
        assert all(0 < share < 1 for share in profile.tolerance.values())
