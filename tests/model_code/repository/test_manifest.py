"""The threshold in manifests, and the identity of those of earlier versions."""

import json
from pathlib import Path

import pytest

from model_code.artifacts import hash_bytes
from model_code.repository.manifest import MANIFEST_FILE, Approval, Manifest
from tests.support.serving import APPROVAL, staged


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
