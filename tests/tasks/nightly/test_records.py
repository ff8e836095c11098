"""The features in the tags of a model version."""

import datetime as dt

import pytest

from model_code.artifacts import ArtifactRef
from model_code.features.served import SOLO, SeenFeatures
from model_code.settings import FeatureSpec
from tasks.nightly.records import (
    EXOGENOUS_TAG,
    FEATURE_SET_TAG,
    LEADERS_TAG,
    Plan,
    SourceDay,
    SplitWindows,
    Supplements,
    seen_of,
    seen_tags,
)

PAIRED = SeenFeatures(feature_set="paired", leaders={"A/B": ("Ü", "C"), "D": ("C",)})


SERIES = SeenFeatures(feature_set="exogenous", exogenous=("macro.vix", "macro.rate"))
DAY, NEXT = (
    SourceDay(market="m", date=dt.date(2024, 8, day), symbol="A", digest="d", simulated=False)
    for day in (8, 9)
)


@pytest.mark.parametrize("seen", [SOLO, PAIRED, SERIES])
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


def test_series_are_tagged_where_there_are_any() -> None:
    assert seen_tags(SERIES)[EXOGENOUS_TAG] == '["macro.vix", "macro.rate"]'
    assert EXOGENOUS_TAG not in seen_tags(PAIRED)


def test_a_stage_depends_on_what_its_set_needs_alone() -> None:
    names = ("depth A 2024-08-08", "depth A 2024-08-09", "exogenous/macro", "exogenous/other")
    plan = Plan(train=(DAY,), test=(NEXT,), warnings=(), supplements={name: name for name in names})
    assert Supplements.of(plan, FeatureSpec()) is None
    depth = Supplements.of(plan, FeatureSpec(feature_set="depth"))
    assert depth == Supplements(market="m", digests={name: name for name in names[:2]})
    series = FeatureSpec(feature_set="exogenous", exogenous=("macro.vix", "missing.x"))
    assert Supplements.of(plan, series) == Supplements(market="m", digests={names[2]: names[2]})


def test_the_snapshots_digest_covers_depth_rows_and_tables() -> None:
    plain = Plan(train=(DAY,), test=(NEXT,), warnings=())
    with_depth = plain.model_copy(update={"supplements": {"depth A 2024-08-09": "1"}})
    with_table = plain.model_copy(update={"supplements": {"exogenous/macro": "1"}})
    changed = plain.model_copy(update={"supplements": {"exogenous/macro": "2"}})
    digests = [plan.digest for plan in (plain, with_depth, with_table, changed)]
    assert len(set(digests)) == 4
    before = with_depth.model_copy(update={"test": ()})  # the test day's rows are not used
    assert before.digest == plain.model_copy(update={"test": ()}).digest
