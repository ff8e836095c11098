"""An error is one message and exit status 1; an unexpected one leaves its traceback in a log."""

from pathlib import Path

import pytest

from flows.cli import __main__ as command
from model_code.errors import ConfigError
from tests.support.cli import plain


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def failing(error: Exception) -> object:
    def app() -> None:
        raise error

    return app


def test_an_expected_error_says_what_where_and_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ConfigError("a value is wrong", where="night.yaml", remedy="fix it")
    monkeypatch.setattr(command, "app", failing(error))
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 1
    shown = capsys.readouterr().err
    for part in ("tickline failed", "a value is wrong", "night.yaml", "fix it"):
        assert part in shown
    assert not (home / "logs").exists()


def test_an_unexpected_error_leaves_its_traceback_in_a_log(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "app", failing(ZeroDivisionError("division by zero")))
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 1
    assert "unexpected ZeroDivisionError: division by zero" in capsys.readouterr().err
    (log,) = (home / "logs").glob("error-*.log")
    assert "Traceback" in log.read_text()


def test_a_home_that_cannot_be_written_is_named_with_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.write_text("a file where the folder should be")
    monkeypatch.setattr(command, "app", failing(NotADirectoryError(20, "Not a directory", "x")))
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 1
    shown = plain(capsys.readouterr().err)
    for part in ("cannot write to the home folder", "TICKLINE_HOME=FOLDER"):
        assert part in shown
    assert "Traceback" not in shown
