"""Threshold and features in manifests, and the identity of those of earlier versions."""

import json
from pathlib import Path

import pytest

from model_code.artifacts import hash_bytes
from model_code.features.served import SOLO, SeenFeatures, ServedFeatures
from model_code.repository.manifest import MANIFEST_FILE, Approval, Manifest
from tests.support.serving import APPROVAL, staged

FEATURES = ServedFeatures(
    feature_set="paired",
    leaders={"A": ("B",)},
    label="executable-roundtrip",
    horizon_ms=100.0,
    reset_gap_s=10.0,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return staged(tmp_path / "staging", 3, threshold=0.125)


def older(folder: Path) -> tuple[Path, str]:
    """The folder with a manifest of an earlier version, and the identity it had then."""
    path = folder / MANIFEST_FILE
    values = json.loads(path.read_text())
    del values["threshold"]
    path.write_text(json.dumps(values, indent=2) + "\n")
    del values["approval"]
    return folder, hash_bytes(json.dumps(values, separators=(",", ":")).encode())


def test_the_threshold_is_read_back_and_part_of_the_identity(folder: Path) -> None:
    found = Manifest.load(folder)
    assert found.threshold == 0.125
    assert json.loads(found.text())["threshold"] == 0.125
    assert found.model_copy(update={"threshold": 0.5}).identity != found.identity


def test_an_earlier_manifest_keeps_its_identity_through_its_approval(folder: Path) -> None:
    folder, identity = older(folder)
    found = Manifest.load(folder)
    assert (found.threshold, found.identity) == (0.5, identity)
    approved = found.model_copy(update={"approval": APPROVAL})
    (folder / MANIFEST_FILE).write_bytes(approved.text())
    again = Manifest.load(folder)
    assert again.identity == identity
    assert isinstance(again.approval, Approval)
    assert "threshold" not in json.loads(again.text())


def test_the_features_are_read_back_and_part_of_the_identity(tmp_path: Path) -> None:
    found = Manifest.load(staged(tmp_path / "staging", 3, features=FEATURES))
    assert found.features == FEATURES
    assert found.seen == SeenFeatures(feature_set="paired", leaders={"A": ("B",)})
    other = FEATURES.model_copy(update={"leaders": {"A": ("C",)}})
    assert found.model_copy(update={"features": other}).identity != found.identity


def test_a_manifest_without_features_is_of_the_set_solo_and_keeps_its_identity(
    folder: Path,
) -> None:
    values = json.loads((folder / MANIFEST_FILE).read_text())
    assert "features" not in values
    del values["approval"]
    found = Manifest.load(folder)
    assert found.seen == SOLO
    assert found.identity == hash_bytes(json.dumps(values, separators=(",", ":")).encode())
