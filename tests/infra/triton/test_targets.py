"""Promotions are for the servers of the policy, whatever the caller's environment says."""

from pathlib import Path
from typing import Any

import pytest

from infra.triton import targets
from infra.triton.server import Ports, TritonServer
from infra.triton.targets import of_policy, serving_settings
from model_code.errors import ConfigError
from model_code.settings import Settings
from tests.support.policy import write_policy

TWO = {"east": "a:8001", "west": "b:8001"}


def settings(folder: Path, **values: Any) -> Settings:
    return Settings.model_validate({"home": folder} | values)


@pytest.mark.parametrize(
    ("asked", "policy", "message"),
    [
        ({"triton_url": "c:1"}, {"triton_url": "a:1"}, "TICKLINE_TRITON_URL is c:1.* says a:1"),
        ({"triton_url": "c:1"}, {"targets": TWO}, "TICKLINE_TRITON_URL is c:1.*targets east, west"),
        ({"triton_url": "c:1"}, {}, "TICKLINE_TRITON_URL is c:1.*the server of tickline triton up"),
        ({"targets": TWO}, {"triton_url": "a:1"}, "TICKLINE_TARGETS is .*b:8001.* says a:1"),
        (
            {"targets": TWO | {"west": "c:8001"}},
            {"targets": TWO},
            "TICKLINE_TARGETS is .*c:8001.*b:8001",
        ),
        ({"targets": TWO, "quorum": 1}, {"targets": TWO}, "TICKLINE_QUORUM is 1.*quorum all"),
    ],
)
def test_another_server_than_the_policys_is_refused_with_both(
    asked: dict[str, Any], policy: dict[str, Any], message: str, tmp_path: Path
) -> None:
    caller = settings(tmp_path, **asked)
    found = write_policy(caller, **({"triton_url": None} | policy))
    with pytest.raises(ConfigError, match=message) as caught:
        of_policy(caller, found)
    assert caught.value.where == str(found.path)


def test_without_a_setting_the_policys_servers_are_used(tmp_path: Path) -> None:
    caller = settings(tmp_path)
    found = of_policy(caller, write_policy(caller, triton_url="a:1"))
    assert (found.triton_url, found.home) == ("a:1", caller.home)
    several = of_policy(caller, write_policy(caller, triton_url=None, targets=TWO, quorum=1))
    assert (list(several.targets), several.needed_targets) == (["east", "west"], 1)
    assert serving_settings(caller) == several
    other = settings(tmp_path, triton_url="c:1")
    assert serving_settings(other) == other, "who only looks may look elsewhere"


def test_the_same_setting_as_the_policys_is_no_contradiction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for values in ({"triton_url": "a:1"}, {"targets": TWO, "quorum": 2}):
        caller = settings(tmp_path, **values)
        policy = {"triton_url": None} | values
        assert of_policy(caller, write_policy(caller, **policy)) == caller
    here = TritonServer.at(1, Ports(1, 2, 3), tmp_path, tmp_path, "")
    monkeypatch.setattr(targets, "status", lambda _: here)
    caller = settings(tmp_path, triton_url=here.grpc_url)
    assert of_policy(caller, write_policy(caller, triton_url=None)).triton_url is None
