"""What cannot be trained or measured is refused when the specification is read."""

from typing import Any

import pytest
from pydantic import ValidationError

from model_code.settings import NightlySpec, PromotionSpec


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_seeds_that_every_generator_takes(seed: int) -> None:
    assert NightlySpec.model_validate({"training": {"seed": seed}}).training.seed == seed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"seed": -1}}, "greater than or equal to 0"),
        ({"training": {"seed": 2**32}}, "less than 4294967296"),
        (
            {"network": {"KIND": "conv-transformer", "d_model": 60}},
            "8 heads do not divide d_model 60",
        ),
        (
            {"network": {"KIND": "conv-transformer-2", "heads": 5}},
            "5 heads do not divide d_model 64",
        ),
        ({"benchmark": {"batches": [1, 0]}}, "greater than 0"),
        ({"benchmark": {"batches": [8, 1, 8]}}, "only once"),
        ({"benchmark": {"batches": [1, 65]}}, "at most 64 windows"),
        ({"benchmark": {"batches": []}}, "at least 1 item"),
        ({"benchmark": {"concurrency": [4, -1]}}, "greater than 0"),
        ({"benchmark": {"concurrency": [4, 4]}}, "only once"),
    ],
)
def test_values_that_would_fail_later_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        NightlySpec.model_validate(changes)


@pytest.mark.parametrize("concurrency", [[0], [8, 8]])
def test_a_promotion_loads_with_sensible_numbers_of_clients(concurrency: list[int]) -> None:
    with pytest.raises(ValidationError, match="concurrency"):
        PromotionSpec.model_validate({"concurrency": concurrency})
