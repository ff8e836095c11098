"""A nightly whose instrument-days run on a cluster has the same artefacts."""

import json
import re
from pathlib import Path

import pytest

from flows.nightly import nightly
from flows.runs.outcome import Outcome
from model_code.settings import Settings
from tests.support.flow import EASY, SIMULATED, stage_states, tiny

# two exports of one network differ in names that the exporter gives; later stages measure time
EQUAL = ("validate", "features", "split", "train")


def artefacts(home: Path) -> dict[str, list[str]]:
    """Hashes of the artefacts that each of those stages refers to, in one home."""
    found: dict[str, list[str]] = {stage: [] for stage in EQUAL}
    for path in sorted((home / "results").iterdir()):
        stage = path.name.rpartition("-")[0]
        if stage in found:
            text = json.loads(path.read_text())["result"]
            found[stage] += re.findall(r'sha256\\*"\s*:\s*\\*"([0-9a-f]{64})', text)
    return {stage: sorted(hashes) for stage, hashes in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["dask:2", "ray:2"])
def test_a_nightly_on_a_cluster_gives_the_same_artefacts(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str
) -> None:
    goals = tmp_path / "goals.yaml"
    goals.write_text(EASY)
    spec = tiny(SIMULATED.replace("instruments=1", "instruments=2"), goals=str(goals))
    first = nightly(spec)
    alone = artefacts(home.home)
    assert all(alone.values())
    monkeypatch.setenv("TICKLINE_CLUSTER", cluster)
    # everything is computed again: the workers, too, must not use older results
    second = nightly(spec, refresh=True)
    assert isinstance(first, Outcome)
    assert isinstance(second, Outcome)
    states = stage_states(second.flow_run_name)
    days = {name: state for name, state in states.items() if name.startswith("validate ")}
    assert len(days) == 4
    assert set(days.values()) == {"Completed"}
    assert artefacts(home.home) == alone
