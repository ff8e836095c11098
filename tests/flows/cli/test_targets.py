"""`tickline reconcile`, and the targets in `tickline status`."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.__main__ import app
from model_code.repository.audit import AuditLog
from model_code.repository.serving import RepositoryBusyError, ServingRepository
from model_code.repository.targets import TargetStates
from model_code.serving.levels import Level
from model_code.serving.servers import Servers
from model_code.settings import Settings
from tasks.promotion import targets as steps
from tests.support.targets import TwoTargets


def invoke(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "160"})
    return found.exit_code, re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m", " ", found.output))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TwoTargets:
    """Version 2 serves in the east; the west was away and has version 1."""
    desk = TwoTargets(tmp_path)
    values = {
        "HOME": str(tmp_path / "home"),
        "SERVING": str(desk.place.root),
        "TARGETS": '{"east": "east:1", "west": "west:1"}',
    }
    for name, value in values.items():
        monkeypatch.setenv(f"TICKLINE_{name}", value)

    @contextmanager
    def servers(*_: Any) -> Iterator[Servers]:
        yield desk.servers()

    monkeypatch.setattr(steps, "serving_servers", servers)
    desk.west.away = True
    desk.change("promote", 2, 1, quorum=1)
    return desk


def test_reconcile_says_who_is_behind_and_brings_them_level(desk: TwoTargets) -> None:
    code, said = invoke("reconcile")
    assert code == 1
    assert "west no answer 1, 2 none behind: failed to connect" in said
    settings = Settings().resolved()
    states = TargetStates.load(desk.place.state)
    assert (states.version, states.level, list(states.behind)) == (2, ("east",), ["west"])
    assert steps.behind_now(settings) == states.behind
    desk.west.away = False
    code, said = invoke("reconcile", "--by", "ada")
    assert code == 0
    assert "west 1 1, 2 loaded 1, 2 level" in said
    assert TargetStates.load(desk.place.state).behind == {}
    code, said = invoke("reconcile")
    assert (code, "west 1, 2 1, 2 none level" in said) == (0, True)
    (record,) = AuditLog(settings.audit_file).read()  # the others changed nothing
    assert (record.event, record.facts["version"], record.facts["by"]) == ("reconciled", 2, "ada")
    assert record.facts["targets"] == {"west": "loaded 1, 2"}
    assert "reconciled" in invoke("audit")[1]


def test_reconcile_is_refused_beside_a_promotion_and_watch_tries_again(
    desk: TwoTargets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    desk.west.away = False
    real, look, rounds, locked = steps.reconcile_targets, steps.compare_targets, 0, 0
    alive = tmp_path / "alive"

    def compared(settings: Settings) -> tuple[Level, ...]:
        nonlocal rounds
        rounds += 1
        if rounds == 5:
            raise KeyboardInterrupt
        if rounds < 3:
            assert not alive.exists(), "the west does not answer for the champion"
        return look(settings)

    def counted(settings: Settings, by: str) -> tuple[Level, ...]:
        nonlocal locked
        locked += 1
        if rounds > 2:
            return real(settings, by)
        with ServingRepository(desk.place.root).exclusive():
            return real(settings, by)

    monkeypatch.setattr(steps, "compare_targets", compared)
    monkeypatch.setattr(steps, "reconcile_targets", counted)
    with pytest.raises(RepositoryBusyError):
        invoke("reconcile")
    locked = 0
    _, said = invoke("reconcile", "--watch", "--every", "0.1", "--alive-file", str(alive))
    assert rounds == 5
    assert locked == 3, "the lock of promotions is left alone once every target is level"
    assert alive.exists()
    assert said.count("another promotion or rollback is running") == 1
    assert said.count("loaded 1, 2") == 1
    assert said.count("west") == 1  # the next round finds it level: nothing new to print


def test_a_probe_is_answered_while_a_version_loads(
    desk: TwoTargets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    desk.west.away = False
    monkeypatch.setattr("flows.cli.targets.LOADING_S", 0.05)
    look, loaded, alive = steps.compare_targets, threading.Event(), tmp_path / "alive"
    done: list[bool] = []

    def compared(settings: Settings) -> tuple[Level, ...]:
        if done:
            raise KeyboardInterrupt
        found = look(settings)
        if alive.exists():  # touched by the look before: the load is still running
            loaded.set()
        # the champion answers, another version does not yet
        return tuple(replace(one, answers=True, problem="behind") for one in found)

    def slow(settings: Settings, by: str) -> tuple[Level, ...]:
        done.append(loaded.wait(120))
        return look(settings)

    monkeypatch.setattr(steps, "compare_targets", compared)
    monkeypatch.setattr(steps, "reconcile_targets", slow)
    invoke("reconcile", "--watch", "--every", "0.1", "--alive-file", str(alive))
    assert done == [True], "the file was touched while the load ran"


def test_status_shows_the_targets_and_changes_nothing(desk: TwoTargets) -> None:
    desk.west.away = False
    _, said = invoke("status")
    assert "no stack is running" in said
    assert "east 1, 2 1, 2 none level" in said
    assert "a target is behind: tickline reconcile" in said
    assert desk.west.versions() == [1]


def test_a_single_server_shows_no_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path))
    assert "behind" not in invoke("status")[1]
    settings = Settings().resolved()
    assert steps.target_facts(settings) == steps.behind_now(settings) == {}
    assert steps.target_line(settings) == ""
