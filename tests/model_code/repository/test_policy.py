"""Who decides, within which limits, for which server: read from one file, never from who asks."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from model_code.artifacts import hash_path
from model_code.errors import ConfigError, PromotionError
from model_code.repository.policy import LOOSER, Policy, PolicyFile, policy_path
from model_code.settings import PromotionSpec

KEY = "ssh-ed25519 QWRh"
OTHER = "ssh-ed25519 R3JhY2U="
LOOSE: dict[str, Any] = {
    "decision_hours": 25.0, "answer_tolerance": 0.03, "concurrency": (1, 8), "load_requests": 399,
    "shadow_requests": 399, "shadow_s": 59.0, "shares": (0.5, 1.0), "canary_requests": 399,
    "canary_patience": 19, "max_error_rate": 0.1, "max_p50_ratio": 2.1, "max_p99_ms": None,
    "max_disagreement": 0.3, "allow_simulated": True, "not_comparable": "a new label",
    "positive_requests": 99, "canary_step_s": 4.0, "canary_live_requests": 49,
    "canary_live_s": 59.0, "max_positive_disagreement": 0.6, "alpha": 0.01,
}  # fmt: skip
STRICT: dict[str, Any] = {
    "decision_hours": 23.0, "answer_tolerance": 0.01, "concurrency": (1, 2, 8, 32),
    "load_requests": 401, "shadow_requests": 401, "shadow_s": 61.0,
    "shares": (0.01, 0.05, 0.5, 1.0), "canary_requests": 401, "canary_patience": 21,
    "max_error_rate": 0.0, "max_p50_ratio": 1.9, "max_p99_ms": 49.0, "max_disagreement": 0.1,
    "positive_requests": 101, "canary_step_s": 6.0, "canary_live_requests": 51,
    "canary_live_s": 61.0, "max_positive_disagreement": 0.4, "alpha": 0.1,
}  # fmt: skip


def policy(**changes: Any) -> Policy:
    return Policy.model_validate({"reviewers": ["ada", "grace"]} | changes)


def test_every_limit_has_a_direction_and_is_tried_here() -> None:
    fields = PromotionSpec.model_fields.keys() - {"KIND"}
    assert LOOSER.keys() == fields, "say in LOOSER which way a new limit is looser"
    assert LOOSE.keys() == fields, "try the new limit here"


@pytest.mark.parametrize("name", LOOSE)
def test_a_looser_value_is_refused_unless_the_policy_allows_it(name: str, tmp_path: Path) -> None:
    asked = PromotionSpec(**{name: LOOSE[name]})
    as_yaml = yaml.safe_load(yaml.dump(asked.model_dump(mode="json")[name]))
    strict, bounded = policy(), policy(loosest={name: as_yaml})
    wanted = strict.asked(asked)
    assert getattr(wanted, name) == LOOSE[name]
    (line,) = strict.beyond(wanted)
    assert line.startswith(f"{name} ")
    path = policy_path(tmp_path / "serving")
    with pytest.raises(PromotionError, match=f"looser than the policy allows: {name}") as caught:
        PolicyFile(path, "0" * 64, strict).require_within(wanted)
    assert caught.value.where == str(path)
    assert bounded.beyond(wanted) == ()
    (loosened,) = bounded.loosened(wanted)
    assert loosened.startswith(f"{name} ")
    PolicyFile(path, "0" * 64, bounded).require_within(wanted)


@pytest.mark.parametrize("name", STRICT)
def test_a_stricter_value_is_always_allowed_and_is_no_loosening(name: str) -> None:
    found = policy()
    wanted = found.asked(PromotionSpec(**{name: STRICT[name]}))
    assert getattr(wanted, name) == STRICT[name]
    assert found.beyond(wanted) == found.loosened(wanted) == ()


def test_what_is_not_asked_for_is_the_policys() -> None:
    found = policy(limits={"max_disagreement": 0.1, "load_requests": 800})
    assert found.asked(PromotionSpec()) == found.limits
    wanted = found.asked(PromotionSpec(max_disagreement=0.05))
    assert (wanted.max_disagreement, wanted.load_requests) == (0.05, 800)
    assert found.beyond(found.asked(PromotionSpec(max_disagreement=0.2))), "the default is looser"


def test_values_that_contradict_the_policys_are_an_error_of_who_asks() -> None:
    found = policy(limits={"shadow_requests": 30})
    with pytest.raises(ConfigError, match="canary_patience exceeds shadow_requests"):
        found.asked(PromotionSpec(canary_patience=31))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reviewers": []}, "reviewers"),
        ({"reviewers": ["ada", "Ada"]}, "a name is there twice"),
        ({"reviewers": ["a*"]}, "is no name"),
        ({"reviewer": ["ada"]}, "reviewer: Extra inputs are not permitted"),
        ({"loosest": {"max_agreement": 1}}, "no limit is named max_agreement"),
        ({"loosest": {"max_disagreement": 0.1}}, "stricter than limits: max_disagreement"),
        ({"loosest": {"max_disagreement": "much"}}, "valid number"),
        ({"quorum": 1}, "a quorum needs targets"),
        ({"triton_url": "http://a:1"}, "has a scheme"),
        ({"signatures": "required"}, "no key of ada, grace"),
        (
            {"signatures": "required", "allowed_signers": f"ada {KEY}"},
            "allowed_signers has no key of grace",
        ),
        ({"allowed_signers": "ada ssh-ed25519"}, "line 1 is not NAME KEY-TYPE KEY"),
        ({"allowed_signers": f"* {KEY}"}, "'\\*' is no reviewer's name"),
        ({"allowed_signers": f"ada {KEY}\ngrace {KEY}"}, "ada and grace have the same key"),
        ({"allowed_signers": f"ada,grace {KEY}"}, "ada and grace have the same key"),
        ({"allowed_signers": f"ada cert-authority {KEY}"}, "each reviewer's own key"),
    ],
)
def test_a_wrong_policy_is_named_with_its_file(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = policy_path(tmp_path / "serving")
    path.write_text(yaml.safe_dump({"reviewers": ["ada", "grace"]} | changes))
    with pytest.raises(ConfigError, match=message) as caught:
        PolicyFile.load(tmp_path / "serving")
    assert caught.value.where == str(path)


@pytest.mark.parametrize("content", [b"", b"- ada\n", b"{", b"\xff"])
def test_a_file_that_is_no_policy_is_refused(content: bytes, tmp_path: Path) -> None:
    policy_path(tmp_path / "serving").write_bytes(content)
    with pytest.raises(ConfigError, match="the policy is wrong"):
        PolicyFile.load(tmp_path / "serving")


def test_without_a_policy_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    assert PolicyFile.find(tmp_path / "serving") is None
    with pytest.raises(ConfigError, match="nobody may decide") as caught:
        PolicyFile.load(tmp_path / "serving")
    assert "tickline policy init --reviewer NAME" in caught.value.remedy


def test_a_policy_is_read_with_the_hash_of_its_bytes(tmp_path: Path) -> None:
    signers = (
        f'# of the desk\nada valid-before="20300101",namespaces="tickline" {KEY} at the desk\n'
    )
    document = {
        "reviewers": ["ada"], "signatures": "required", "allowed_signers": signers + f"bob {OTHER}",
        "targets": {"east": "a:1", "west": {"url": "b:1", "repository": "/srv/west"}}, "quorum": 1,
    }  # fmt: skip
    path = policy_path(tmp_path / "serving")
    path.write_text(yaml.safe_dump(document))
    found = PolicyFile.load(tmp_path / "serving")
    assert found.sha256 == hash_path(path)
    assert (found.policy.four_eyes, found.policy.limits) == (True, PromotionSpec())
    assert found.policy.signers.keys() == {"ada", "bob"}  # a former reviewer's key may stay
    (key,) = found.policy.signers["ada"]
    assert key.options == 'valid-before="20300101",namespaces="tickline"'
    assert found.policy.targets["west"].control_url == "b:1"
