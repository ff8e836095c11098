"""Shares by feature, lag and slice; their distance."""

import numpy as np
import pytest

from model_code.attribution.explain import Attributions
from model_code.attribution.profile import Drift, Profile, distance
from model_code.attribution.sample import Sample
from model_code.errors import DataError
from tests.support.attribution import profile

NAMES = [f"f{number}" for number in range(16)]
SYMBOLS = np.array(["A", "A", "B", "B"])
LABELS = np.array([0, 1, 0, 1])
SAMPLE = Sample(
    place_B=np.arange(4),
    weight_B=np.array([0.45, 0.05, 0.45, 0.05]),
    half_B=np.array([True, False, True, False]),
)


def of(value_BFL: np.ndarray) -> Profile:
    found = Attributions(value_BFL, np.zeros(4), value_BFL.sum(axis=(1, 2)))
    return Profile.of(found, SAMPLE, NAMES, SYMBOLS, LABELS, 2)


def test_shares_are_weighted_absolute_means() -> None:
    value_BFL = np.zeros((4, 16, 4))
    value_BFL[0, 3, 0] = -2.0  # weight 0.45
    value_BFL[1, 5, 2] = 2.0  # weight 0.05
    found = of(value_BFL)
    assert list(found.shares)[:2] == ["f3", "f5"]
    assert list(found.shares.values())[:2] == pytest.approx([0.9, 0.1])
    assert found.lag_shares == pytest.approx({"newest": 0.9, "1-3": 0, "4-15": 0.1, "16-63": 0})
    assert found.slices[0].mean_abs[3][0] == pytest.approx(0.9)
    by_name = {(each.dimension, each.name): each for each in found.slices}
    assert set(by_name) == {
        ("all", "all"), ("instrument", "A"), ("label", "0"), ("label", "1"),
    }  # nothing changes the answers of B  # fmt: skip
    assert by_name["label", "0"].shares[3] == 1.0
    assert by_name["label", "1"].shares[5] == 1.0
    assert found.noise == 1.0  # one half looks at f3, the other at f5
    assert found.line.startswith("f3 90%, f5 10%")
    assert found.metrics()["attribution/f3"] == pytest.approx(0.9)
    text = found.markdown()
    assert "| f3 | 90.0% | 0.900 | 0.000 | 0.000 | 0.000 |" in text
    assert "| label 1 | 2 | f5 100%" in text
    assert Profile.model_validate_json(found.model_dump_json()) == found


def test_without_a_second_half_the_noise_is_unknown() -> None:
    value_BFL = np.zeros((4, 16, 4))
    value_BFL[0] = 1.0
    assert of(value_BFL).noise is None


def test_a_model_that_looks_at_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="no feature changes"):
        of(np.zeros((4, 16, 4)))


def test_distance_is_the_share_that_moved() -> None:
    assert distance({"a": 1.0, "b": 1.0}, {"a": 10.0, "b": 10.0}) == 0.0
    assert distance({"a": 1.0}, {"b": 3.0}) == 1.0
    assert distance({"a": 0.5, "b": 0.5}, {"a": 0.2, "b": 0.8}) == pytest.approx(0.3)


def test_drift_names_what_changed_most_and_the_noise() -> None:
    old, new = profile(a=2, b=2, gone=4, c=2), profile(noise=0.1, a=2, b=5, c=1, d=2)
    found = Drift.between(old, new, "the champion (version 3)")
    assert found.distance == pytest.approx(0.5)
    assert found.changed == (
        ("gone", 0.4, 0.0), ("b", 0.2, 0.5), ("d", 0.0, 0.2),
    )  # fmt: skip
    assert found.line == (
        "50% of the attribution moved between features since the champion (version 3) "
        "(halves of one night differ by 10%); most: gone 40% to 0%, b 20% to 50%, d 0% to 20%"
    )
    assert Drift.between(profile(None, a=1), profile(None, a=1), "x").noise is None
