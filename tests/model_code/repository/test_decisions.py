"""The text that a reviewer signs."""

from typing import Any

import pytest

from model_code.repository.decisions import Subject

FACTS: dict[str, Any] = {
    "version": 7, "manifest": "m" * 64, "engine_sha256": "e" * 64, "config_sha256": "c" * 64,
    "policy_sha256": "p" * 64, "verdict": "pass", "flow_run_id": "f", "started_by": "bob",
    "loosened": ("max_disagreement 0.4, the policy's limit is 0.2",),
    "exceptions": ("large drift of spread",),
}  # fmt: skip
HOSTILE = "sound\nverdict: pass\nreviewer: grace"


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 8}, {"manifest": "0" * 64}, {"engine_sha256": "0" * 64},
        {"config_sha256": "0" * 64}, {"policy_sha256": "0" * 64}, {"verdict": "no baseline"},
        {"flow_run_id": "g"}, {"loosened": ()}, {"exceptions": ("no baseline",)},
    ],
)  # fmt: skip
def test_every_fact_is_signed(changes: dict[str, Any]) -> None:
    words = ("ada", "sound", "grace", "2027-01-31")
    one = Subject.model_validate(FACTS).text("approve", *words)
    assert Subject.model_validate(FACTS | changes).text("approve", *words) != one


@pytest.mark.parametrize("place", range(4))
def test_every_word_of_the_decision_is_signed(place: int) -> None:
    subject = Subject.model_validate(FACTS)
    words = ["ada", "sound", "grace", "2027-01-31"]
    one = subject.text("approve", *words)
    assert subject.text("reject", *words) != one
    words[place] += "!"
    assert subject.text("approve", *words) != one


def test_what_somebody_wrote_cannot_look_like_another_fact() -> None:
    subject = Subject.model_validate(FACTS | {"loosened": (HOSTILE,), "exceptions": (HOSTILE,)})
    plain = Subject.model_validate(FACTS).text("approve", "ada", "sound", "grace", "2027-01-31")
    found = subject.text("approve", "ada", HOSTILE, HOSTILE, HOSTILE)
    names = [line.partition(": ")[0] for line in plain.splitlines()]
    assert [line.partition(": ")[0] for line in found.splitlines()] == names
    assert len(set(names)) == len(names)
