"""`tickline policy`, and what becomes of the variables that it replaced."""

from pathlib import Path

import pytest

from flows.runs import promotions
from model_code.errors import ConfigError
from model_code.repository.policy import PolicyFile, policy_path
from model_code.settings import Settings
from tests.support.cli import tickline
from tests.support.policy import write_policy

KEYS = {"ada": "ssh-ed25519 QWRh ada@desk", "grace": "ssh-ed25519 R3JhY2U= grace@desk"}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    for name, line in KEYS.items():
        (tmp_path / f"{name}.pub").write_text(line + "\n")
    return Settings().resolved()


def test_init_writes_a_policy_once(desk: Settings, tmp_path: Path) -> None:
    keys = [
        word for name in KEYS for word in ("--reviewer", name, "--key", tmp_path / f"{name}.pub")
    ]
    said = tickline("policy", "init", *keys, "--allow-simulated", "--triton-url", "a:8001")
    assert "reviewer ada ssh-ed25519 SHA256:" in said
    found = PolicyFile.load(desk.serving_repository)
    assert (found.policy.reviewers, found.policy.signatures) == (("ada", "grace"), "required")
    assert found.policy.signers.keys() == KEYS.keys()
    assert found.policy.loosest == {"allow_simulated": True}
    assert found.policy.triton_url == "a:8001"
    assert found.sha256 in said
    with pytest.raises(ConfigError, match="there is a policy already, and it was not changed"):
        tickline("policy", "init", "--reviewer", "mallory")
    assert PolicyFile.load(desk.serving_repository) == found


def test_init_takes_the_servers_of_the_environment(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_TARGETS", '{"east": "a:1", "west": "b:1"}')
    monkeypatch.setenv("TICKLINE_QUORUM", "1")
    said = tickline("policy", "init", "--reviewer", "ada", "--no-four-eyes")
    assert "server east a:1, west b:1; quorum 1" in said
    policy = PolicyFile.load(desk.serving_repository).policy
    assert (list(policy.targets), policy.quorum, policy.four_eyes) == (["east", "west"], 1, False)
    assert (policy.signatures, policy.allowed_signers) == ("optional", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--key", "ada.pub"], "1 reviewers and 2 keys"),
        (["--signatures", "required"], "no key of ada"),
        (["--signatures", "often"], "signatures: Input should be 'required' or 'optional'"),
    ],
)
def test_a_policy_that_would_be_wrong_is_not_written(
    desk: Settings, tmp_path: Path, words: list[str], message: str
) -> None:
    keys = ["--key", str(tmp_path / "ada.pub")] if "--key" in words else []
    with pytest.raises(ConfigError, match=message):
        tickline("policy", "init", "--reviewer", "ada", *keys, *words)
    assert not policy_path(desk.serving_repository).exists()


def test_a_private_key_is_refused(desk: Settings, tmp_path: Path) -> None:
    private = tmp_path / "ada"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n")
    with pytest.raises(ConfigError, match="this is no public key"):
        tickline("policy", "init", "--reviewer", "ada", "--key", private)


def test_check_says_what_is_wrong_and_who_could_change_it(desk: Settings) -> None:
    with pytest.raises(ConfigError, match="has no policy"):
        tickline("policy", "check")
    found = write_policy(desk, loosest={"max_disagreement": 0.4})
    found.path.chmod(0o644)
    said = tickline("policy", "check")
    assert "may loosen max_disagreement 0.4" in said
    assert "the policy is valid" in said
    found.path.chmod(0o664)
    with pytest.raises(ConfigError, match="other accounts can change the policy"):
        tickline("policy", "check")
    found.path.write_text("reviewers: []\n")
    with pytest.raises(ConfigError, match="the policy is wrong: reviewers"):
        tickline("policy", "show")


def test_the_tables_fit_80_columns(desk: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from flows.cli.__main__ import app

    write_policy(desk, allowed_signers=f'ada valid-before="20300101" {KEYS["ada"]}\n')
    page = CliRunner().invoke(app, ["policy", "show"], env={"COLUMNS": "80"}).output
    lines = [line for line in page.splitlines() if "sha256" not in line]  # the path is whole
    assert "ada" in page
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("command", ["promote", "approve", "reject"])
def test_the_variables_of_earlier_versions_are_named_once_and_do_nothing(
    desk: Settings, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("TICKLINE_FOUR_EYES=false\n")
    monkeypatch.setenv("TICKLINE_REVIEWERS", "mallory")
    monkeypatch.setattr(promotions, "start", lambda *_: None)
    monkeypatch.setattr(promotions, "decide", lambda *_, **__: None)
    monkeypatch.setattr("flows.cli.promotion.say_outcome", lambda _: None)
    words = [] if command == "promote" else ["7", "--reviewer", "ada", "--reason", "sound"]
    said = tickline(command, *words)
    path = str(policy_path(desk.serving_repository))
    assert said.count("TICKLINE_REVIEWERS and TICKLINE_FOUR_EYES ignored") == 1
    assert path in said
