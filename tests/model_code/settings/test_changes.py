"""Specifications as YAML and changes of single keys."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from model_code.errors import ConfigError
from model_code.settings import (
    PRESETS,
    BlendSpec,
    MlpSpec,
    NetworkSpec,
    NightlySpec,
    PromotionSpec,
    Spec,
    TrainingSpec,
)
from model_code.settings.changes import (
    assign,
    changed,
    differences,
    from_yaml,
    leaves,
    shown,
    to_yaml,
)

FULL = NightlySpec(
    market="simulated:?seed=7",
    instruments=("A.sim", "é/B"),
    test_date="2024-08-08",
    training=TrainingSpec(learning_rate=1e-05, weight_decay=0.0),
    network=BlendSpec(weight=0.25),
)


@pytest.mark.parametrize(
    "spec",
    [NightlySpec(), FULL, PromotionSpec(), *map(NightlySpec.model_validate, PRESETS.values())],
)
def test_a_specification_written_as_yaml_reads_back_equal(spec: Spec) -> None:
    text = to_yaml(spec)
    assert type(spec).model_validate(from_yaml(text)) == spec
    assert all(f"{name.rpartition('.')[2]}:" in text for name in leaves(spec))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1.5E+3", 1500.0), ("-2e2", -200.0), ("0.5", 0.5), ("7", 7),
        ("2024-08-08", "2024-08-08"), ("null", None), ("[a, b]", ["a", "b"]), ("e4", "e4"),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them_and_dates_as_text(text: str, value: Any) -> None:
    found = from_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_single_keys_change_and_all_else_stays() -> None:
    spec = assign(
        FULL,
        ["training.learning_rate=3e-4", "network.hidden=128", "test_date=2024-08-09"],
    )
    assert differences(leaves(FULL), leaves(spec)) == {
        "test_date": ("2024-08-08", "2024-08-09"),
        "network.hidden": (256, 128),
        "training.learning_rate": (1e-05, 3e-4),
    }
    assert assign(FULL, []) == FULL


def test_a_new_kind_starts_its_section_from_the_kinds_defaults() -> None:
    spec = assign(NightlySpec(), ["network.hidden=128", "network.KIND=mlp"])
    assert spec.network == MlpSpec(hidden=128)
    kept = NightlySpec(network=NetworkSpec(d_model=16))
    assert assign(kept, ["network.KIND=conv-transformer"]) == kept
    assert differences(leaves(kept), leaves(spec))["network.d_model"] == (16, None)


def test_what_was_not_set_stays_unset() -> None:
    spec = changed(NightlySpec(), {"benchmark.requests": 50})
    assert spec.benchmark.model_fields_set == {"requests"}


@pytest.mark.parametrize(
    ("assignment", "message", "near"),
    [
        ("learning_rate=1", "no key is named learning_rate", "training.learning_rate"),
        ("training.lr=1", "no key is named training.lr", "training.learning_rate"),
        ("trainin.epochs=1", "no key is named trainin.epochs", "training.epochs"),
        ("test_dat=1", "no key is named test_dat", "test_date"),
        ("xyzzy=1", "no key is named xyzzy", "docs/settings.md"),
        ("network=mlp", "network is a section", "network.KIND"),
        ("networks.KIND=mlp", "no key is named networks.KIND", "network.KIND"),
        ("training.epochs", "not a change of one key", "path=value"),
        ("=3", "not a change of one key", "path=value"),
        ("instruments=[a", "the value of instruments is not YAML", "quote it"),
    ],
)
def test_an_unknown_key_names_the_near_ones(assignment: str, message: str, near: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        assign(NightlySpec(), [assignment])
    assert near in caught.value.remedy


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ValidationError, match="epochs"):
        assign(NightlySpec(), ["training.epochs=many"])


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-4, "0.0003"), (None, "null"), ("mlp", "mlp"), (["a", "b"], "[a, b]"), (True, "true")],
)
def test_values_are_shown_on_one_line(value: Any, text: str) -> None:
    assert shown(value) == text
