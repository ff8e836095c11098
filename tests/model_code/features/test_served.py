"""Which features a version sees, as its manifest and its registry tags name them."""

from model_code.features.served import SOLO, ServedFeatures
from model_code.settings import FeatureSpec

LEADERS = {"A": ("B", "C", "D"), "E": ()}


def test_leaders_reach_no_further_than_the_set_looks() -> None:
    seen = {
        name: ServedFeatures.of(FeatureSpec(feature_set=name), LEADERS).leaders
        for name in ("solo", "paired", "venues")
    }
    assert seen == {"solo": {}, "paired": {"A": ("B", "C")}, "venues": {"A": ("B",)}}


def test_versions_share_windows_if_set_and_leaders_are_equal() -> None:
    one = ServedFeatures.of(FeatureSpec(feature_set="paired", horizon_ms=50.0), {"A": ("B",)})
    other = ServedFeatures.of(FeatureSpec(feature_set="paired"), {"A": ("B",)})
    assert one != other
    assert one.seen == other.seen
    assert one.seen != ServedFeatures.of(FeatureSpec(feature_set="paired"), {"A": ("C",)}).seen
    assert ServedFeatures.of(FeatureSpec(feature_set="solo"), {"A": ("B",)}).seen == SOLO
    assert one.text == "paired, looks at others: A at B"
    assert SOLO.text == "solo, looks at others: none"


def test_all_that_a_version_depends_on_is_read_back() -> None:
    spec = FeatureSpec(feature_set="venues", label="cross-venue", horizon_ms=20.0, reset_gap_s=3.0)
    found = ServedFeatures.of(spec, {"A": ("B",)})
    assert (found.label, found.horizon_ms, found.reset_gap_s) == ("cross-venue", 20.0, 3.0)
    assert ServedFeatures.model_validate_json(found.model_dump_json()) == found


def test_the_series_of_a_version_are_named() -> None:
    spec = FeatureSpec(feature_set="exogenous", exogenous=("macro.vix", "btc.move"))
    found = ServedFeatures.of(spec, {})
    assert found.seen.exogenous == ("macro.vix", "btc.move")
    assert found.text == "exogenous (macro.vix, btc.move), looks at others: none"
    assert ServedFeatures.model_validate_json(found.model_dump_json()) == found
    assert found.seen != ServedFeatures.of(spec.with_set("exogenous", ("macro.vix",)), {}).seen
