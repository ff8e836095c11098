"""The features in the tags of a model version."""

import pytest

from model_code.artifacts import ArtifactRef
from model_code.features.served import SOLO, SeenFeatures
from tasks.nightly.records import (
    FEATURE_SET_TAG,
    LEADERS_TAG,
    SplitWindows,
    seen_of,
    seen_tags,
)

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


def test_the_nights_notes_say_which_windows_were_sampled_by_class() -> None:
    sampling = "2,000 of 2,000 with an opportunity, 30,768 of 498,000 without, weighted"
    windows = ArtifactRef(name="split", path="/split", sha256="0")
    found = SplitWindows(
        windows=windows, summary={"train": {"kept": 5}, "test": {"sampling": sampling}}
    )
    assert found.notes == (f"test windows: {sampling}",)
    assert SplitWindows(windows=windows, summary={"test": {"kept": 5}}).notes == ()
