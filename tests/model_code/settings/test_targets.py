"""Several targets in the settings."""

from pathlib import Path

import pytest

from infra.servers import environment
from model_code.errors import ConfigError
from model_code.settings import Settings
from model_code.settings.targets import below_majority

TWO = '{"east": "a:8001", "west": {"url": "b:8001", "control": "b:9001", "repository": "w"}}'


def test_targets_reach_the_processes_that_run_flows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"TICKLINE_TARGETS={TWO}\nTICKLINE_QUORUM=1\n")
    mine = Settings().resolved(home=tmp_path / "home")
    assert list(mine.targets) == ["east", "west"]
    assert [one.control_url for one in mine.targets.values()] == ["a:8001", "b:9001"]
    assert mine.needed_targets == 1
    values = environment(mine)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("TICKLINE_TARGETS", "TICKLINE_QUORUM"):
        monkeypatch.setenv(name, values[name])
    theirs = Settings().resolved()
    assert theirs.targets["west"].repository == tmp_path / "w"
    assert (theirs.targets["east"], theirs.quorum) == (mine.targets["east"], 1)


def test_without_targets_one_server_is_the_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().needed_targets == 1
    assert "TICKLINE_TARGETS" not in environment(Settings())
    monkeypatch.setenv("TICKLINE_TARGETS", TWO)
    assert Settings().needed_targets == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"TARGETS": "east=a:8001"}, "not JSON"),
        ({"TARGETS": '["a:8001"]'}, "valid"),
        ({"TARGETS": '{"east": "a:1", "east": "b:1"}'}, "a name is there twice"),
        ({"TARGETS": '{"East 1": "a:1"}'}, "lower-case letters"),
        ({"TARGETS": '{"east": "a:1", "west": "a:1"}'}, "the same address"),
        ({"TARGETS": '{"east": {"uri": "a:1"}}'}, "uri"),
        ({"TARGETS": TWO, "QUORUM": "3"}, "must be 1 to 2"),
        ({"TARGETS": TWO, "QUORUM": "0"}, "must be 1 to 2"),
        ({"TARGETS": TWO, "TRITON_URL": "a:8001"}, "exclude each other"),
        ({"QUORUM": "1"}, "a quorum needs targets"),
    ],
)
def test_contradicting_targets_are_refused(
    values: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.cli.options import settings_from_environment

    for name, value in values.items():
        monkeypatch.setenv(f"TICKLINE_{name}", value)
    with pytest.raises(ConfigError, match=message):
        settings_from_environment()


def test_a_quorum_below_a_majority_is_said() -> None:
    assert below_majority(1, 1) == below_majority(2, 2) == below_majority(2, 3) == ""
    assert "1 of 2 targets, is no majority" in below_majority(1, 2)
