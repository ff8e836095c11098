"""The features in the tags of a model version."""

import pytest

from model_code.features.served import SOLO, SeenFeatures
from tasks.nightly.records import FEATURE_SET_TAG, LEADERS_TAG, seen_of, seen_tags

PAIRED = SeenFeatures(feature_set="paired", leaders={"A/B": ("Ü", "C"), "D": ("C",)})


@pytest.mark.parametrize("seen", [SOLO, PAIRED])
def test_features_are_read_back_from_tags(seen: SeenFeatures) -> None:
    assert seen_of(seen_tags(seen)) == seen


def test_tags_hold_the_leaders_as_json() -> None:
    assert seen_tags(SeenFeatures(feature_set="venues", leaders={"A": ("B",)})) == {
        FEATURE_SET_TAG: "venues",
        LEADERS_TAG: '{"A": ["B"]}',
    }


def test_a_version_of_before_there_were_sets_is_solo() -> None:
    assert seen_of({"threshold": "0.5"}) == SOLO
