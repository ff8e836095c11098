"""A nightly in each market profile ends in a verdict; what the profile set aside is said."""

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from model_code.errors import DataError
from model_code.settings import Settings, ValidationSpec
from tests.support.flow import EASY, nightly_outcome, tiny
from tests.support.market import equities, fx

VERDICTS = {"pass", "no baseline", "fail"}


@pytest.fixture
def easy(tmp_path: Path) -> str:
    path = tmp_path / "easy.yaml"
    path.write_text(EASY)
    return str(path)


def test_a_night_on_equities_states_its_profile_and_says_what_was_left_out(
    home: Settings, tmp_path: Path, easy: str
) -> None:
    found = nightly_outcome(tiny(equities(tmp_path / "ticks"), goals=easy))
    assert found.verdict.verdict in VERDICTS
    notes = "\n".join(found.warnings)
    assert "rows quarantined (" in notes
    assert "locked_quote" in notes
    assert "rows repeat the row above, left out" in notes
    assert "classified by Lee and Ready" in notes
    assert "columns not used (trades): conditions" in notes

    mlflow = MlflowClient(home.tracking_uri)
    kept = mlflow.download_artifacts(found.mlflow_run_id, "validation/notes.json")
    of_ticks = tuple(json.loads(Path(kept).read_text())["notes"])
    leaders = "leaders (measured on 2024-08-08): nobody looks at another"
    assert found.warnings == (*of_ticks, leaders)


def test_a_night_on_fx_passes_only_under_its_profile(
    home: Settings, tmp_path: Path, easy: str
) -> None:
    assert home.tracking_uri
    market = fx(tmp_path / "ticks")
    stated = ValidationSpec(minimum_rows=100, profile="crypto")
    with pytest.raises(DataError, match="crossed_quote"):
        nightly_outcome(tiny(market, goals=easy, validation=stated))
    found = nightly_outcome(tiny(market, goals=easy))
    assert "profile fx presumed" in "\n".join(found.warnings)
    assert found.verdict.verdict in VERDICTS
    assert "crossed_quote" in "\n".join(found.warnings)
