"""The shared store that the settings name."""

from pathlib import Path

import pytest

from model_code.settings import Settings
from model_code.storage.shared import shared_objects


def test_a_home_alone_shares_nothing(tmp_path: Path) -> None:
    assert shared_objects(Settings(home=tmp_path)) is None


def test_the_address_of_the_settings(tmp_path: Path) -> None:
    found = shared_objects(Settings(home=tmp_path, store=str(tmp_path / "shared")))
    assert found is not None
    assert found.uri == (tmp_path / "shared").as_uri()
    found.write("a", b"a")
    assert (tmp_path / "shared" / "a").read_bytes() == b"a"


def test_a_password_in_the_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no password"):
        Settings(home=tmp_path, store="s3://key:secret@bucket/x")
