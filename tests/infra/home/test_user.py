"""A user without a home folder or a name, as systemd and Kubernetes start processes."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.home.user import KEPT, missing
from tests.support.commands import ROOT
from tests.support.disk import small_disk

COMMAND = ROOT / ".venv" / "bin" / "tickline"
NOBODY = 54321  # without an entry in the password file
# a user of the machine need not be able to read this checkout, so reading is allowed
RIGHTS = [
    f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search",
]  # fmt: skip


def test_a_user_with_a_home_folder_and_a_name_lacks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: None)
    assert missing({}) == {}


def test_a_user_without_gets_folders_under_tickline_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", absent)
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "ours"))
    found = missing({"NUMBA_CACHE_DIR": "/cache"})
    assert found.pop("HOME") == str(tmp_path / "ours")
    assert found.pop("LOGNAME") == f"uid {os.getuid()}"
    assert found.keys() == KEPT.keys() - {"NUMBA_CACHE_DIR"}
    assert all(value.startswith(str(tmp_path / "ours")) for value in found.values())
    assert "LOGNAME" not in missing({"USER": "ada"})
    monkeypatch.delenv("TICKLINE_HOME")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValidationError, match="TICKLINE_HOME is not set"):
        missing({})


def as_nobody(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a uid without an entry and without HOME, outside of the checkout."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed (Debian: util-linux)")
    path = {"PATH": os.environ["PATH"]}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["setpriv", *RIGHTS, *command],
            cwd="/",
            env=path | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )

    tried = run("true")
    if tried.returncode != 0:
        pytest.skip(f"another user cannot be taken on here: {tried.stderr.strip()}")
    return run(str(COMMAND), *words)


def open_to_all(folder: Path) -> Path:
    """The new folder, which any user can reach and write to."""
    for parent in folder.parents[: len(folder.parents) - 2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_a_uid_without_entry_and_home_is_told_of_the_setting() -> None:
    done = as_nobody("--version")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("tickline failed: ")
    assert "TICKLINE_HOME" in line


def test_a_uid_without_entry_and_home_uses_tickline_home(tmp_path: Path) -> None:
    folder = open_to_all(tmp_path / "open")
    done = as_nobody("gc", TICKLINE_HOME=str(folder / "home"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "home" / "prefect").is_dir()


def test_a_home_of_another_user_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    folder = open_to_all(tmp_path / "open")
    done = as_nobody("gc", HOME=str(folder), TICKLINE_HOME=str(tmp_path / "home"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_home_on_a_read_only_disk_is_one_message(tmp_path: Path) -> None:
    with small_disk(tmp_path, 1) as home:
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        done = subprocess.run(
            [str(COMMAND), "gc"],
            env=os.environ | {"TICKLINE_HOME": str(home), "COLUMNS": "300"},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("tickline failed") == 1
    assert "Read-only file system" in done.stderr
    assert f"where: {home}" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
