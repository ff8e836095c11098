"""Search spaces as people write them."""

import re
from typing import Any

import pytest

from model_code.errors import ConfigError
from model_code.settings import MlpSpec, NightlySpec
from model_code.settings.tuning import (
    Choices,
    Interval,
    TuneSpec,
    as_given,
    dimension,
    require_searchable,
    search_space,
)

MLP = NightlySpec(network=MlpSpec())


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1e-4..3e-3:log", Interval(low=1e-4, high=3e-3, log=True)),
        ("0..0.5", Interval(low=0, high=0.5)),
        ("1..4", Interval(low=1, high=4)),
        ("64,128,256", Choices(values=(64, 128, 256))),
        ("fp32, bf16", Choices(values=("fp32", "bf16"))),
        ([64, 128], Choices(values=(64, 128))),
    ],
)
def test_ranges_and_choices(written: Any, expected: Interval | Choices) -> None:
    assert dimension("training.x", written) == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("3..1", "the lower end must be below the upper"),
        ("0..1:log", "must be above 0"),
        ("1..2:cubic", "unknown scale 'cubic'"),
        ("a..b", "Input should be a valid"),
        ("7", "at least 2 items"),
        (7, "at least 2 items"),
        ([], "at least 2 items"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(written: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        search_space({"training.x": written})
    assert "training.x" in caught.value.what


def test_integers_stay_integers() -> None:
    assert Interval(low=1, high=4).integer
    assert not Interval(low=1.0, high=4.0).integer
    assert Interval(low=1, high=4).holds(4)
    assert not Interval(low=1, high=4).holds(2.5)
    assert not Interval(low=0, high=1).holds(True)
    assert not Interval(low=0, high=1).holds("1")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"network.hiden": "1..4"}, "no key is named network.hiden"),
        ({"network.d_model": "16,32"}, "no key is named network.d_model"),  # of another network
        ({"split.train_windows": "1..4"}, "only keys of network and training"),
        ({"training.epochs": "1.5..2.5"}, "training.epochs cannot be 1.5"),
        ({"network.dropout": "0..1.5"}, "network.dropout cannot be 1.5"),
        ({"training.precision": "fp32,fp8"}, "training.precision cannot be fp8"),
    ],
)
def test_wrong_keys_and_values_are_refused_before_the_search(
    search: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        require_searchable(MLP, TuneSpec(search=search_space(search)))


def test_right_keys_pass_and_own_values_are_found_if_the_space_has_them() -> None:
    search = {"network.hidden": "64,256", "training.learning_rate": "1e-4..1e-3:log"}
    tune = TuneSpec(search=search_space(search))
    require_searchable(MLP, tune)
    assert as_given(MLP, tune) == {"network.hidden": 256, "training.learning_rate": 1e-3}
    narrow = TuneSpec(search=search_space(search | {"network.hidden": "64,128"}))
    assert as_given(MLP, narrow) is None
