"""`~` in folders."""

import pwd
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.cli.options import settings_from_environment
from model_code.errors import ConfigError
from model_code.settings import NightlySpec, Settings

FOLDERS = ("HOME", "STAGING", "SERVING", "TRITON", "AUDIT")


def test_a_tilde_is_the_users_home_in_every_folder_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in FOLDERS:
        monkeypatch.setenv(f"TICKLINE_{name}", f"~/{name}")
    monkeypatch.setenv("TICKLINE_MARKET", "~/ticks")
    monkeypatch.setenv("TICKLINE_MLFLOW_TRACKING_URI", "~/runs")
    monkeypatch.setenv("TICKLINE_TARGETS", '{"east": {"url": "a:1", "repository": "~/east"}}')
    found = settings_from_environment()
    assert [getattr(found, name.lower()) for name in FOLDERS] == [
        tmp_path / name for name in FOLDERS
    ]
    assert (found.market, found.tracking_uri) == (str(tmp_path / "ticks"), str(tmp_path / "runs"))
    assert found.targets["east"].repository == tmp_path / "east"


def test_every_folder_of_the_settings_is_tried() -> None:
    folders = {
        name.upper()
        for name, field in Settings.model_fields.items()
        if "Path" in str(field.annotation)
    }
    assert folders == set(FOLDERS)


def test_other_text_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("simulated:?seed=1", "s3://ticks/~x", "./ticks/"):
        monkeypatch.setenv("TICKLINE_MARKET", uri)
        assert settings_from_environment().market == uri


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without HOME and without an entry in the password file, and no `.env`."""

    def absent(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("TICKLINE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", absent)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("nobody")
def test_without_a_users_home_the_message_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no home folder and TICKLINE_HOME is not set"):
        settings_from_environment()
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    with pytest.raises(ConfigError, match="no home folder and TICKLINE_HOME is not set"):
        settings_from_environment()
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "ours"))
    found = settings_from_environment()
    assert found.home == tmp_path / "ours"
    assert found.triton_home.is_relative_to(found.home)


def test_a_question_mark_in_the_home_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "why?"))
    with pytest.raises(ConfigError, match=r"TICKLINE_HOME: .*cannot hold a question mark"):
        settings_from_environment()


def test_a_stored_path_is_relative_to_the_home_it_lies_in(tmp_path: Path) -> None:
    first, second = (Settings(home=tmp_path / name).resolved() for name in ("first", "second"))
    stored = first.inside(first.staging_repository / "m" / "1")
    assert stored == "staging/m/1"
    assert second.located(stored) == second.staging_repository / "m" / "1"
    elsewhere = tmp_path / "shared" / "1"
    assert second.located(first.inside(elsewhere)) == elsewhere


def test_an_unknown_users_home_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKLINE_SERVING", "~no-such-user/serving")
    with pytest.raises(ConfigError, match=r"TICKLINE_SERVING: .*write the folder in full"):
        settings_from_environment()


@pytest.mark.parametrize("uri", ["ftp://desk:hush-hush@ticks/days", "s3://key:hush-hush@bucket"])
def test_a_market_with_a_password_is_refused_because_runs_log_it(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="logged with every run"):
        Settings(home=tmp_path, market=uri)
    with pytest.raises(ValidationError, match="logged with every run"):
        NightlySpec(market=uri)


@pytest.mark.parametrize("uri", ["s3://bucket/ticks", "ftp://desk@ticks/days", "simulated:?seed=7"])
def test_a_market_without_one_is_accepted(uri: str, tmp_path: Path) -> None:
    assert Settings(home=tmp_path, market=uri).market == uri
    assert NightlySpec(market=uri).market == uri
