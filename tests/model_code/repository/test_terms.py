"""What two versions' figures refer to, and whether they can be compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from model_code.repository.manifest import MANIFEST_FILE, Manifest
from model_code.repository.terms import UNKNOWN, Terms
from model_code.settings import FeatureSpec, SplitSpec
from tasks.runs.version_tags import TERMS_TAG, terms_of
from tests.support.serving import staged

SPLIT = SplitSpec()
TERMS = Terms.of(FeatureSpec(feature_set="paired"), SPLIT)


@pytest.mark.parametrize(
    ("features", "split", "text", "same_question"),
    [
        ({"horizon_ms": 250.0}, {}, "horizon_ms 100 instead of 250", False),
        ({"cost_bps": 1.5}, {}, "cost_bps 0 instead of 1.5", False),
        ({"reset_gap_s": 5.0}, {}, "reset_gap_s 10 instead of 5", False),
        ({"label": "mid-move"}, {}, "label executable-roundtrip instead of mid-move", False),
        ({"feature_set": "solo"}, {}, "feature_set paired instead of solo", True),
        ({}, {"test_windows": 4096}, "split.test_windows 32768 instead of 4096", True),
        ({}, {"embargo_ms": 0.0}, "split.embargo_ms 1000 instead of 0", True),
    ],
)
def test_each_difference_is_named(
    features: dict[str, Any], split: dict[str, Any], text: str, same_question: bool
) -> None:
    spec = FeatureSpec.model_validate({"feature_set": "paired"} | features)
    other = Terms.of(spec, SplitSpec.model_validate(split))
    assert TERMS.differences(other) == (text,)
    assert TERMS.same_question(other) is same_question


def test_other_formulas_and_series_are_named_too() -> None:
    formulas = TERMS.model_copy(update={"features": "level1-17"})
    assert TERMS.differences(formulas) == ("features level1-16 instead of level1-17",)
    assert not TERMS.same_question(formulas)
    exogenous = TERMS.model_copy(update={"exogenous": ("macro.vix", "btc.move")})
    assert TERMS.differences(exogenous) == ("exogenous none instead of macro.vix, btc.move",)


def test_equal_terms_do_not_differ_and_unknown_ones_do() -> None:
    own_leaders = FeatureSpec(leaders={"A": ("B",)})
    assert TERMS.differences(Terms.of(own_leaders, SPLIT)) == ()  # leaders are measured each night
    assert TERMS.same_question(Terms.of(own_leaders, SPLIT))
    assert TERMS.differences(None) == (UNKNOWN,)
    assert not TERMS.same_question(None)


@pytest.mark.parametrize("tag", [None, "", "{}", '{"features": 1}'])
def test_a_version_s_tag_is_read_back_and_a_malformed_one_is_unknown(tag: str | None) -> None:
    assert terms_of({TERMS_TAG: TERMS.model_dump_json()}) == TERMS
    assert terms_of({} if tag is None else {TERMS_TAG: tag}) is None


def test_a_manifest_keeps_them_and_an_earlier_one_its_identity(tmp_path: Path) -> None:
    found = Manifest.load(staged(tmp_path / "with", 3, terms=TERMS))
    assert found.terms == TERMS
    other = TERMS.model_copy(update={"horizon_ms": 250.0})
    assert found.model_copy(update={"terms": other}).identity != found.identity
    folder = staged(tmp_path / "without", 4)
    assert "terms" not in json.loads((folder / MANIFEST_FILE).read_text())
    assert Manifest.load(folder).terms is None
