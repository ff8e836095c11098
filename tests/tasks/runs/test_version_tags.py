"""The features in the tags of a model version, and its description."""

import pytest

from model_code.features.served import SOLO, SeenFeatures
from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import (
    EXOGENOUS_TAG,
    FEATURE_SET_TAG,
    LEADERS_TAG,
    link_evidence,
    seen_of,
    seen_tags,
)

PAIRED = SeenFeatures(feature_set="paired", leaders={"A/B": ("Ü", "C"), "D": ("C",)})


SERIES = SeenFeatures(feature_set="exogenous", exogenous=("macro.vix", "macro.rate"))


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


def test_series_are_tagged_where_there_are_any() -> None:
    assert seen_tags(SERIES)[EXOGENOUS_TAG] == '["macro.vix", "macro.rate"]'
    assert EXOGENOUS_TAG not in seen_tags(PAIRED)


def test_a_description_links_to_the_newest_evidence_page(home: Settings) -> None:
    mlflow = mlflow_runs.client(home)
    mlflow.create_registered_model("described")
    mlflow.create_model_version("described", "file:///nowhere", description="**pass**: openvino")
    for link in ("./#/first", "./#/second"):
        link_evidence(mlflow, "described", "1", link)
    text = mlflow.get_model_version("described", "1").description
    assert text == "**pass**: openvino\n\n[Evidence page](./#/second)"
