from pathlib import Path

import pytest

from flows.demos import moved_home
from flows.demos.moved_home import play
from model_code.errors import TicklineError


def test_a_night_in_a_copied_home_comes_back_cached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = play(tmp_path)
    printed = capsys.readouterr().out
    assert "Cached    train" in printed
    assert "Cached    stage candidate" in printed
    assert "Completed" not in printed
    assert last.startswith("moved: 19 of 19 stages Cached")
    assert (tmp_path / "first" / "mlflow.db").is_file()


def test_a_copy_that_writes_to_the_original_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def night(home: Path, _: Path) -> None:
        (tmp_path / "first" / "mlartifacts").mkdir(parents=True)

    monkeypatch.setattr(moved_home, "_night", night)
    monkeypatch.setattr(moved_home, "_stages", lambda _: [])
    with pytest.raises(TicklineError, match="wrote to the home it came from"):
        play(tmp_path)
