from pathlib import Path

import numpy as np
import pytest

from model_code.errors import IntegrityError
from model_code.repository.requests import Replay


def test_saved_requests_are_read_back(tmp_path: Path) -> None:
    replay = Replay(
        np.ones((3, 64, 16), np.float32), np.array([0.1, 0.5, 0.9]), np.array([0, 1, 1], np.int8)
    )
    replay.save(tmp_path / "replay.npz")
    found = Replay.load(tmp_path / "replay.npz")
    np.testing.assert_array_equal(found.x_RTF, replay.x_RTF)
    np.testing.assert_array_equal(found.probability_R, replay.probability_R)
    np.testing.assert_array_equal(found.label_R, replay.label_R)
    assert (found.champion_version, found.champion_x_RTF) == (None, None)


def test_a_champion_s_own_windows_are_read_back(tmp_path: Path) -> None:
    x_RTF = np.zeros((2, 64, 16), np.float32)
    replay = Replay(x_RTF, np.array([0.1, 0.9]), np.array([0, 1], np.int8), 4, x_RTF + 1)
    replay.save(tmp_path / "replay.npz")
    found = Replay.load(tmp_path / "replay.npz")
    assert found.champion_version == 4
    assert found.champion_x_RTF is not None
    np.testing.assert_array_equal(found.champion_x_RTF, x_RTF + 1)


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_a_broken_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "replay.npz"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="cannot read the recorded requests"):
        Replay.load(path)
    with pytest.raises(IntegrityError, match="cannot read the recorded requests"):
        Replay.load(tmp_path / "absent.npz")
