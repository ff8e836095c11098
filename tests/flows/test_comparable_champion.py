"""Nights beside a champion of other terms: the verdict is never `pass`."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from model_code.errors import PromotionError
from model_code.repository.manifest import Manifest
from model_code.repository.terms import UNKNOWN
from model_code.settings import MODEL_NAME, FeatureSpec, PromotionSpec, Settings
from tasks.promotion.open_promotion import _require_promotable
from tasks.runs.version_tags import TERMS_TAG, terms_of
from tests.support.flow import EASY, nightly_outcome, tiny
from tests.support.market import hive
from tests.support.serving import serves


def test_a_champion_of_another_label_or_of_an_earlier_version_is_not_comparable(
    home: Settings, tmp_path: Path
) -> None:
    market, goals = hive(tmp_path / "market"), tmp_path / "goals.yaml"
    goals.write_text(EASY)
    spec = tiny(market, goals=str(goals))
    first = nightly_outcome(spec)
    assert first.registered is not None
    mlflow = MlflowClient(home.tracking_uri)
    serves(home, first.registered.version)
    tags = mlflow.get_model_version(MODEL_NAME, first.registered.version).tags
    assert first.staged is not None
    terms = Manifest.load(Path(first.staged.path)).terms
    assert terms is not None
    assert terms_of(tags) == terms
    assert (terms.horizon_ms, terms.split) == (spec.features.horizon_ms, spec.split)

    # the same champion, another horizon
    longer = spec.model_copy(update={"features": FeatureSpec(horizon_ms=200.0)})
    other = nightly_outcome(longer)
    assert (other.verdict.verdict, other.verdict.promotable) == ("not comparable", False)
    why = "the champion, version 1, is another: horizon_ms 200 instead of 100"
    assert other.verdict.reason == why
    assert other.benchmark.row("champion") is not None
    assert other.staged is not None
    manifest = Manifest.load(Path(other.staged.path))
    assert (manifest.verdict, manifest.promotable) == ("not comparable", False)
    with pytest.raises(PromotionError, match="was not compared with the champion"):
        _require_promotable(manifest, PromotionSpec())
    _require_promotable(manifest, PromotionSpec(not_comparable="a new label"))

    # the same terms, but the registry does not say so
    mlflow.delete_model_version_tag(MODEL_NAME, first.registered.version, TERMS_TAG)
    unknown = nightly_outcome(spec)
    assert unknown.verdict.verdict == "not comparable"
    assert unknown.verdict.reason == f"the champion, version 1, is another: {UNKNOWN}"
